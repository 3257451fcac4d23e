// Fault: NNI's remote service starts no experiment while one machine is down, never comes back to a machine that was lost,
// fails the trials of a lost machine for good, places trials in turn whatever a machine has to do, and lets the keepers of a
// killed manager fight with those of the resumed one (microsoft/nni #1565, #514).
// Repair: the machines that are there start; the others, and those that are lost, are tried every 10 s. A lost machine's
// trials wait for it and continue from their checkpoint, else they run again elsewhere. The least loaded machine comes first.
'use strict';
const HERE = `require(${JSON.stringify(__filename)})`;
const { setTimeout: sleep } = require('timers/promises');
const network = require('./network.js');
const results = require('./results.js');
const ssh = require('./ssh.js');
const trialEnd = require('./trial_end.js');

const RETRY_S = 10; // between two attempts to reach a machine
const HOME_S = Number(process.env.FOOD11_TRIAL_WAITS_S ?? 300); // a trial waits so long for the machine with its checkpoint
const LOSSES = 3; // of one trial's machine, after which the trial has failed

// What the manager would store in its database and show to everyone who reaches its page.
function refuseSecrets({ trainingService }) {
    for (const machine of trainingService.machineList ?? []) {
        const name = ['password', 'sshPassphrase'].find(key => machine[key] !== undefined && machine[key] !== null);
        if (name) {
            throw new Error(`${name} of ${machine.host}: NNI's page and database would show it; use sshKeyFile (with a passphrase: ssh-add it)`);
        }
    }
}

// --- machines come and go. service: NNI's RemoteTrainingServiceV3.

// Its place in the list names a machine over restarts and resumes; its channel has a new name each time.
function describe(service, machine) {
    const place = String(service.config.machineList.indexOf(machine) + 1);
    return { place, channelPath: ssh.newChannel(service.server.getChannelUrl(ssh.newSecret(), '127.0.0.1')) };
}

function adopt(service, worker, channelPath) {
    Object.assign(worker, { channelPath, secret: channelPath.split('/').pop() });
    worker.isRetry = service.uploads !== undefined;
    worker.trialCommand = service.config.trialCommand;
    worker.codeDirectory = service.config.trialCodeDirectory;
    service.workersByChannel.set(worker.secret, worker);
}

// Starts a worker that service.launchWorker has made; throws where its connection or its keeper ends meanwhile.
async function begin(service, worker) {
    worker.gone = new Promise((_, reject) => {
        worker.onGone = reason => {
            worker.isGone = true;
            reject(new Error(reason));
        };
    });
    worker.gone.catch(() => {}); // `join` looks at it
    worker.ssh.onGone = worker.onGone;
    try {
        await Promise.race([worker.start(), worker.gone]);
    } catch (error) {
        discard(service, worker);
        throw error;
    }
}

// The worker is ready for trials.
function join(service, worker) {
    service.workers.push(worker);
    service.workersByEnv.set(worker.envId, worker);
    service.log.info(`${worker.config.host} has joined with ${worker.env.gpu?.gpuNumber ?? 0} GPUs`);
    worker.gone.catch(error => lose(service, worker, error.message));
    results.catchUp(worker);
}

function lose(service, worker, reason) {
    if (!service.isStopping) {
        service.log.warning(`${worker.config.host} is lost: ${reason}`);
    }
    discard(service, worker);
    if (!service.isStopping) {
        reach(service, worker.config, reason);
    }
}

// Ends what is left of a worker: its connection, its channel with all that waits for an answer through it, its trials.
function discard(service, worker) {
    network.channels.delete(worker.channelPath);
    worker.ssh.client?.destroy();
    worker.ssh.disconnect();
    worker.channel?.close('the worker is gone');
    service.workersByChannel.delete(worker.secret);
    if (service.workersByEnv.get(worker.envId) === worker) {
        service.workersByEnv.delete(worker.envId);
    }
    if (service.workers.includes(worker)) {
        service.workers = service.workers.filter(other => other !== worker);
        service.emitEnvUpdate();
    }
    for (const [trialId, owner] of [...service.workersByTrial]) {
        if (owner === worker) {
            service.workersByTrial.delete(trialId);
            service.emitter.emit('trial_stop', trialId, Date.now(), 'lost');
        }
    }
}

async function startAll(service) {
    const machines = service.config.machineList;
    const started = await Promise.allSettled(machines.map(machine => service.launchWorker(machine)));
    const reasons = started.map(({ reason }) => reason && ssh.firstLine(reason));
    started.forEach(({ value: worker }, number) => {
        if (worker) {
            join(service, worker);
        } else {
            service.log.warning(`${machines[number].host} cannot be used: ${reasons[number]}`);
        }
    });
    if (service.workers.length === 0) {
        throw new Error(`no machine can be used: ${machines.map(({ host }, number) => `${host}: ${reasons[number]}`).join('; ')}`);
    }
    machines.filter((_, number) => reasons[number]).forEach((machine, number) => reach(service, machine, reasons[number]));
}

// In place of uploadDirectory's second half: a machine that fails is tried again with the others.
async function uploadAll(service, name, tar) {
    const uploads = service.workers.map(async worker => {
        try {
            await Promise.race([worker.upload(name, tar), worker.gone]);
        } catch (error) {
            worker.onGone(`the upload of ${name} failed: ${ssh.firstLine(error)}`);
        }
    });
    await Promise.all(uploads);
    service.uploads = { ...service.uploads, [name]: tar };
}

// Until the machine is there, with the code.
async function reach(service, machine, reason) {
    while (!service.isStopping) {
        await sleep(RETRY_S * 1000);
        if (service.isStopping || !service.uploads) {
            continue;
        }
        try {
            const worker = await service.launchWorker(machine);
            for (const [name, tar] of Object.entries(service.uploads)) {
                await Promise.race([worker.upload(name, tar), worker.gone]).catch(error => {
                    discard(service, worker);
                    throw error;
                });
            }
            join(service, worker);
            service.emitEnvUpdate();
            return;
        } catch (error) {
            if (reason !== ssh.firstLine(error)) {
                reason = ssh.firstLine(error);
                service.log.warning(`${machine.host} cannot be used: ${reason}`);
            }
        }
    }
}

// --- trials. compat: NNI's V3asV1, which knows them.

const lost = new Map(); // trial id -> when its machine was lost, until it runs again
const losses = new Map(); // trial id -> the machines that it lost

let turn = Promise.resolve();

// One placement after the other: two at once would both find the same machine free.
function inTurn(work) {
    const mine = turn.then(work);
    turn = mine.catch(() => {});
    return mine;
}

// Machines in the order in which to ask them; on CPUs none that has its share already.
function order(compat) {
    const counted = Object.values(compat.trialJobs).filter(({ id, status }) => ['WAITING', 'RUNNING'].includes(status) && !lost.has(id));
    const load = id => counted.filter(trial => trial.envId === id).length;
    const share = compat.config.trialGpuNumber ? Infinity : Math.ceil(results.manager().experimentProfile.params.trialConcurrency / compat.config.machineList.length);
    return compat.environments.map(({ id }) => id).filter(id => load(id) < share).sort((a, b) => load(a) - load(b));
}

// Where a trial may start now. One that has run before waits for its machine.
function candidates(compat, home, since) {
    const isWaiting = home !== undefined && Date.now() - since < HOME_S * 1000;
    const ids = order(compat);
    return isWaiting ? ids.filter(id => id === home) : ids;
}

// In place of V3asV1's choice of a machine: trials that lost theirs come first. start: starts the trial on one of some.
function place(compat, form, start, logger) {
    return inTurn(async () => {
        await runLost(compat, logger);
        form.waitsSince ??= Date.now();
        const ids = candidates(compat, form.envId, form.waitsSince);
        form.waitsForHome = ids.length === 0 && form.envId !== undefined && Date.now() - form.waitsSince < HOME_S * 1000;
        return await start(ids);
    });
}

// What has become of a trial whose machine is lost: its exit code, or null where it runs again or has been ended here.
function settleLost(compat, trialId, logger) {
    const trial = compat.trialJobs[trialId];
    if (!trial || !['WAITING', 'RUNNING'].includes(trial.status)) {
        return null;
    }
    if (trialEnd.hasFinal(trialId)) {
        return 0; // its result is there: one row, and nothing left to compute
    }
    const { host } = compat.config.machineList[trial.envId.match(/\d+$/) - 1];
    losses.set(trialId, [...(losses.get(trialId) ?? []), host]);
    if (losses.get(trialId).length >= LOSSES) {
        end(trial, 'FAILED', `its machine was lost ${LOSSES} times (${losses.get(trialId).join(', ')})`);
        return null;
    }
    logger.warning(`Trial ${trial.form.sequenceId} (${trialId}) has lost ${host}; it waits ${HOME_S} s for it, then runs again elsewhere`);
    trial.status = 'WAITING';
    lost.set(trialId, Date.now());
    watchLost(compat, logger);
    return null;
}

function end(trial, status, message) {
    lost.delete(trial.id);
    Object.assign(trial, { status, message, endTime: Date.now() });
}

let isWatching = false;

async function watchLost(compat, logger) {
    if (isWatching) {
        return;
    }
    isWatching = true;
    while (lost.size > 0 && !compat.v3.isStopping) {
        await sleep(1000);
        await inTurn(() => runLost(compat, logger));
    }
    isWatching = false;
}

async function runLost(compat, logger) {
    for (const [trialId, since] of [...lost]) {
        const trial = compat.trialJobs[trialId];
        if (trialEnd.cancelled.has(trialId)) {
            end(trial, trial.isEarlyStopped ? 'EARLY_STOPPED' : 'USER_CANCELED', 'cancelled while its machine was lost');
        }
        for (const envId of lost.has(trialId) && !compat.v3.isStopping ? candidates(compat, trial.envId, since) : []) {
            if (await startAgain(compat, trial, envId, logger)) {
                break;
            }
        }
    }
}

async function startAgain(compat, trial, envId, logger) {
    try {
        if (!await compat.v3.createTrial(envId, compat.config.trialCommand, 'trial_code', trial.form.sequenceId, trial.id)) {
            return false; // no GPU is free there
        }
    } catch (error) {
        logger.warning(`Trial ${trial.form.sequenceId} (${trial.id}): ${ssh.firstLine(error)}`);
        return false;
    }
    trial.url = trial.url?.replace(`/${trial.envId}/`, `/${envId}/`);
    trial.envId = envId;
    lost.delete(trial.id);
    logger.info(`Trial ${trial.form.sequenceId} (${trial.id}) runs again on ${envId}`);
    return true;
}

// An answer through a channel that ends meanwhile would never come.
function answerOf(channel, answer) {
    const ended = new Promise((_, reject) => {
        const fail = () => reject(new Error('the worker is gone'));
        channel.onClose(fail);
        channel.onError(fail);
        if (channel.closing) {
            fail();
        }
    });
    ended.catch(() => {});
    return Promise.race([answer, ended]);
}

const REMOTE = 'training_service/remote_v3/remote.js';
const WORKER = 'training_service/remote_v3/worker.js';
const COMPAT = 'training_service/v3/compat.js';
const MANAGER = 'core/nnimanager.js';
module.exports = {
    summary: 'machines: who is there starts, who was lost comes back and gets its trials again, the least loaded comes first',
    refuseSecrets, describe, adopt, begin, startAll, uploadAll, place, settleLost, answerOf,
    edits: [
        [MANAGER, `    async startExperiment(config) {
`, `    async startExperiment(config) {
        ${HERE}.refuseSecrets(config);
`],
        [MANAGER, `    async initTrainingService(config) {
`, `    async initTrainingService(config) {
        ${HERE}.refuseSecrets(config);
`],
        [REMOTE, `        await Promise.all(this.config.machineList.map(workerConfig => this.launchWorker(workerConfig)));`,
            `        await ${HERE}.startAll(this);`],
        [REMOTE, `        await Promise.allSettled(this.workers.map(worker => worker.stop()));`, `        this.isStopping = true;
        await Promise.allSettled(this.workers.map(worker => worker.stop()));`],
        [REMOTE, `        const workers = Array.from(this.workers);
        const results = await Promise.allSettled(workers.map(worker => worker.upload(name, tar)));
        let fail = false;
        results.forEach((result, i) => {
            if (result.status === 'rejected') {
                this.log.error(\`Worker \${workers[i].envId} failed to upload \${name}:\`, result.reason);
                this.stopWorker(workers[i], false);
                fail = true;
            }
        });
        if (fail) {
            this.emitEnvUpdate();
        }
`, `        await ${HERE}.uploadAll(this, name, tar);
`],
        [REMOTE, `        this.lastWorkerIndex += 1;
        const channelId = String(this.lastWorkerIndex);`, `        const { place: channelId, channelPath } = ${HERE}.describe(this, config);`],
        [REMOTE, `        this.workers.push(worker);
        this.workersByChannel.set(worker.channelId, worker);
        this.workersByEnv.set(worker.envId, worker);
`, `        ${HERE}.adopt(this, worker, channelPath);
`],
        [REMOTE, `            worker.env = env;
`, `            worker.env = { ...env, host: worker.config.host };
`],
        [REMOTE, `        await worker.start();
        return worker;`, `        await ${HERE}.begin(this, worker);
        return worker;`],
        [REMOTE, `                    this.log.error('Worker channel closed unexpectedly:', reason);`,
            `                    worker.onGone(\`its trial keeper has ended (\${reason})\`);`],
        [REMOTE, `                    this.log.error('Worker channel error:', error);
                    this.restartWorker(worker);`, `                    worker.onGone(error.message);`],
        [WORKER, `this.log.info('Initializing SSH worker'`, `this.log[this.isRetry ? 'debug' : 'info']('Initializing SSH worker'`],
        [WORKER, `            if (!await this.checkAlive()) {`, `            if (!this.isGone && !await this.checkAlive()) {`],
        // The worker's clock may be another one.
        [REMOTE, `this.emitter.emit('trial_start', trialId, timestamp);`, `this.emitter.emit('trial_start', trialId, Date.now());`],
        [REMOTE, `this.emitter.emit('trial_stop', trialId, timestamp, exitCode);`,
            `this.workersByTrial.delete(trialId);
            this.emitter.emit('trial_stop', trialId, Date.now(), exitCode);`],
        [COMPAT, `            const trial = this.trialJobs[trialId];
            if (exitCode === 0) {`, `            if (exitCode === 'lost') {
                exitCode = ${HERE}.settleLost(this, trialId, logger);
                if (exitCode === null) {
                    return;
                }
            }
            const trial = this.trialJobs[trialId];
            if (exitCode === 0) {`],
        ['common/command_channel/rpc_util.js', `const res = await deferred.promise;`,
            `const res = await ${HERE}.answerOf(this.channel, deferred.promise);`],
    ],
};
