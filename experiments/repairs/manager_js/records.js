// Fault: parameters wait in one queue, and whichever trial asks first gets the oldest, so that trials run with other
// parameters than the ones recorded for them (microsoft/nni #5726, #5693), and TPE then dies of a KeyError (#5798, #5689).
// Repair: parameters belong to a trial id, and a trial that asks waits until NNI has recorded it.
'use strict';
const HERE = `require(${JSON.stringify(__filename)})`;

const parameters = new Map(); // trial id -> what NNI recorded for it, as text
const requested = new Set(); // trials that requested theirs before they were recorded

async function request(service, trialId, logger) {
    if (!parameters.has(trialId)) {
        requested.add(trialId);
        return;
    }
    try {
        await service.v3.sendParameter(trialId, parameters.get(trialId));
    } catch (error) { // its machine is gone, and the trial with it
        logger.error(`Trial ${trialId} did not get its parameters: ${error.message}`);
    }
}

async function release(service, trialId, value, logger) {
    parameters.set(trialId, value);
    if (requested.delete(trialId)) {
        await request(service, trialId, logger);
    }
}

// Start a trial now, or return null where it cannot be placed: the manager keeps the form and asks again at its next
// round, so that it keeps watching its other trials meanwhile. The id stays the same over all attempts.
async function submit(service, form, logger) {
    await service.startDeferred.promise;
    form.id ??= process.mainModule.require('common/utils').uniqueString(5);
    const startOnOne = envIds => start(service, form, envIds, logger);
    if (service.config.machineList) {
        return await require('./machines.js').place(service, form, startOnOne, logger);
    }
    const isThere = service.environments.some(env => env.id === form.envId);
    return await startOnOne([isThere ? form.envId : service.schedule()]);
}

// envIds: in the order in which they are tried.
async function start(service, form, envIds, logger) {
    const submitTime = Date.now();
    let reason = 'no GPU is free for it, or no machine is there';
    for (const envId of envIds.filter(Boolean)) {
        try {
            const { trialCommand } = service.config;
            if (await service.v3.createTrial(envId, trialCommand, 'trial_code', form.sequenceId, form.id)) {
                return describe(service, form, envId, submitTime);
            }
        } catch (error) {
            reason = String(error);
        }
    }
    if (form.waitsFor !== reason) {
        logger.warning(`Trial ${form.sequenceId} waits: ${reason}`);
    }
    form.waitsFor = reason;
    return null;
}

// What V3asV1.submitTrialJob returns of a trial that has started.
function describe(service, form, envId, submitTime) {
    const { experimentId } = globalThis.nni.args;
    const { host } = service.environments.find(env => env.id === envId) ?? {};
    const root = host ? `~/nni-experiments/${experimentId}` : globalThis.nni.paths.experimentRoot;
    const trial = service.trialJobs[form.id] ?? { id: form.id, status: 'WAITING', workingDirectory: '_unset_' };
    const url = `${host ? `${host}:` : ''}${root}/environments/${envId}/trials/${form.id}`;
    service.trialJobs[form.id] = Object.assign(trial, { submitTime, form, envId, url });
    return trial;
}

// After a resume NNI numbers from 1 again when nothing was left running, and two trials share an id and a number.
function recorded(trials) {
    return trials.flatMap(trial => trial.hyperParameters ?? []).map(text => JSON.parse(text));
}

const COMPAT = 'training_service/v3/compat.js';
const MANAGER = 'core/nnimanager.js';
module.exports = {
    summary: 'records: each trial gets the parameters recorded for it',
    request, release, submit, recorded,
    edits: [
        [COMPAT, `    async submitTrialJob(form) {
`, `    async submitTrialJob(form) {
        return await ${HERE}.submit(this, form, logger);
    }
    async replacedSubmitTrialJob(form) {
`],
        [COMPAT, `            if (this.allocatedParameters.has(trialId)) {
                await this.v3.sendParameter(trialId, this.allocatedParameters.get(trialId));
                this.allocatedParameters.delete(trialId);
            }
            else if (this.parameters.length > 0) {
                await this.v3.sendParameter(trialId, this.parameters.shift());
            }
            else {
                logger.error('No parameters available');
            }
`, `            await ${HERE}.request(this, trialId, logger);
`],
        [MANAGER, `this.log.info('submitTrialJob: form:', form);`,
            `if (!form.waitsFor) this.log.info('submitTrialJob: form:', form);`],
        [MANAGER, `const trialJobDetail = await this.trainingService.submitTrialJob(form);`,
            `const trialJobDetail = await this.trainingService.submitTrialJob(form);
                    if (trialJobDetail === null) {
                        this.currSubmittedTrialNum--;
                        if (form.waitsForHome) { // for the machine with its checkpoint; others need not
                            this.waitingTrials.push(form);
                            continue;
                        }
                        this.waitingTrials.unshift(form);
                        break;
                    }`],
        [MANAGER, `this.trialJobs.set(trialJobDetail.id, Snapshot);`, `this.trialJobs.set(trialJobDetail.id, Snapshot);
                    await ${HERE}.release(this.trainingService, trialJobDetail.id, form.hyperParameters.value, this.log);`],
        // Requests to the tuner are dropped at the limit: raised later (update trialnum), NNI said RUNNING and did nothing.
        [MANAGER, `                if (this.status.status !== 'DONE') {
                    this.setStatus('NO_MORE_TRIAL');`, `                this.trialConcurrencyChange = requestTrialNum;
                if (this.status.status !== 'DONE') {
                    this.setStatus('NO_MORE_TRIAL');`],
        [MANAGER, `let maxSequeceId = 0;`,
            `let maxSequeceId = Math.max(0, ...allTrialJobs.map(job => job.sequenceId ?? 0));`],
        [MANAGER, `this.trialDataForResume = JSON.stringify(trialData);`,
            `this.trialDataForResume = JSON.stringify(${HERE}.recorded(allTrialJobs));`],
        // A manager that ends between a resume and the restart of a cut-off trial: the next resume did not know that trial.
        ['core/nniDataStore.js', `            case 'ADD_CUSTOMIZED':`, `            case 'ADD_RESUMED':
            case 'ADD_CUSTOMIZED':`],
    ],
};
