// Fault: what a trial writes on a remote worker stays there: no best.pt, no result.json, no events for TensorBoard, and after
// the experiment's end not even its logs.
// Repair: at its end a trial's folder is copied to where a local trial has it. What could not be copied then, since the
// machine or the manager had gone, is copied when they are back.
'use strict';
const HERE = `require(${JSON.stringify(__filename)})`;
const fs = require('fs');
const path = require('path');
const { promisify } = require('util');
const { setTimeout: sleep } = require('timers/promises');
const ssh = require('./ssh.js');

const STOP_S = 40; // NNI's manager ends itself 60 s after the request to end
const copies = new Map(); // trial id -> its copy that is under way

const root = () => globalThis.nni.paths.experimentRoot;

// NNI's own, which knows all trials.
function manager() {
    const required = name => process.mainModule.require(name);
    return required('common/ioc_shim').IocShim.get(required('common/manager').Manager);
}

const isActive = trialId => manager().trialJobs.has(trialId) || manager().waitingTrials.some(form => form.id === trialId);

// The local copy of a trial's folder; undefined where there is none.
function copied(trialId) {
    const environments = path.join(root(), 'environments');
    const names = fs.existsSync(environments) ? fs.readdirSync(environments) : [];
    return names.map(name => path.join(environments, name, 'trials', trialId)).find(folder => fs.existsSync(folder));
}

const trialsOf = worker => path.posix.join(path.posix.dirname(worker.uploadDir), 'trials');

// Copies the folder of a trial that has ended.
function collect(worker, trialId) {
    const copy = copyTrial(worker, trialId).catch(error => {
        ssh.log().warning(`The files of trial ${trialId} stay on ${worker.config.host} until it is reached again: ${ssh.firstLine(error)}`);
    });
    copies.set(trialId, copy);
    copy.finally(() => copies.delete(trialId));
}

// Whole or not at all, and in one place: the trial may have run on another machine before.
async function copyTrial(worker, trialId) {
    const environment = path.join(root(), 'environments', worker.envId);
    const [partial, target] = [path.join(environment, 'copying', trialId), path.join(environment, 'trials', trialId)];
    fs.rmSync(partial, { recursive: true, force: true });
    await copyFolder(await worker.ssh.sftp(), path.posix.join(trialsOf(worker), trialId), partial);
    for (let old = copied(trialId); old; old = copied(trialId)) {
        fs.rmSync(old, { recursive: true });
    }
    fs.mkdirSync(path.dirname(target), { recursive: true });
    fs.renameSync(partial, target);
}

async function copyFolder(sftp, source, target, wanted = () => true) {
    fs.mkdirSync(target, { recursive: true });
    for (const { filename, attrs } of await promisify(sftp.readdir.bind(sftp))(source)) {
        if (filename.startsWith('.') || path.basename(filename) !== filename || !wanted(filename)) {
            continue;
        }
        const [there, here] = [path.posix.join(source, filename), path.join(target, filename)];
        if (attrs.isDirectory()) {
            await copyFolder(sftp, there, here, wanted);
        } else if (attrs.isFile()) {
            await promisify(sftp.fastGet.bind(sftp))(there, here);
        }
    }
}

// What ended while nobody could copy it.
async function catchUp(worker) {
    try {
        const sftp = await worker.ssh.sftp();
        const entries = await promisify(sftp.readdir.bind(sftp))(trialsOf(worker)).catch(() => []); // no trial has run there
        const ids = entries.map(({ filename }) => filename).filter(name => /^\w+$/.test(name));
        ids.filter(id => !isActive(id) && !copied(id)).forEach(id => collect(worker, id));
    } catch (error) {
        ssh.log().warning(`What earlier trials left on ${worker.config.host} is not copied: ${ssh.firstLine(error)}`);
    }
}

// In place of downloadTrialDirectory, for NNI's page: of a running trial all but its weights.
async function look(service, trialId) {
    const worker = service.workersByTrial.get(trialId);
    if (!worker) {
        await copies.get(trialId);
        const copy = copied(trialId);
        if (!copy) {
            throw new Error(`the machine of trial ${trialId} is not there, and its files have not been copied`);
        }
        return copy;
    }
    const target = path.join(root(), 'trials', trialId);
    await copyFolder(await worker.ssh.sftp(), path.posix.join(trialsOf(worker), trialId), target, name => !name.endsWith('.pt'));
    return target;
}

const allCopied = () => Promise.race([Promise.all(copies.values()), sleep(STOP_S * 1000)]);

const REMOTE = 'training_service/remote_v3/remote.js';
module.exports = {
    summary: "results: a trial's folder is copied back at its end",
    manager, collect, catchUp, look, allCopied,
    edits: [
        [REMOTE, `        worker.trialKeeper.onTrialStop((trialId, timestamp, exitCode) => {
`, `        worker.trialKeeper.onTrialStop((trialId, timestamp, exitCode) => {
            ${HERE}.collect(worker, trialId);
`],
        [REMOTE, `        const worker = this.workersByTrial.get(trialId);
        if (worker) {
            return await worker.downloadTrialLog(trialId);
        }
        else {
            this.log.error('Failed to download trial log: cannot find worker for trial', trialId);
            throw new Error(\`The worker of trial \${trialId} is not working\`);
        }`, `        return await ${HERE}.look(this, trialId);`],
        ['training_service/remote_v3/worker.js', `        await this.trialKeeper.shutdown();
`, `        await this.trialKeeper.shutdown();
        await ${HERE}.allCopied();
`],
    ],
};
