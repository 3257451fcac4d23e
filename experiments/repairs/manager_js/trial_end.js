// Fault: a second final result, one of the wrong type, or one that reaches the tuner after its trial's end kills the tuner
// while NNI says RUNNING; NaN and infinity poison it (microsoft/nni #5739, #5802, #5015).
// Repair: final results are judged as they arrive and reach the tuner right before their trial's end, and only those of
// trials that succeeded or were pruned. A trial that ends without exactly one usable result has failed, with the reason in its
// record. NNI also records a trial that its assessor stops as USER_CANCELED or, where it still reported, SUCCEEDED: here it is
// EARLY_STOPPED, and its result reaches the tuner, now and after a resume.
'use strict';
const HERE = `require(${JSON.stringify(__filename)})`;
const path = require('path');

const DISPATCHER = path.join(path.dirname(__dirname), 'dispatcher.py');
const finals = new Map(); // trial id -> { metric: the report as text, fault: null or why the trial has failed }
const latest = new Map(); // trial id -> its last intermediate report, as text
const cancelled = new Set(); // trials that NNI itself ends
const pruned = new Set(); // those of them that its assessor ends

const brief = text => String(text).replace(/^(.{80}).+$/s, '$1...');

// Why a value, in nni.dump's JSON, is no result for a tuner; null where it is one: a finite number, or a dict with such a
// "default". numpy's scalars arrive as numbers, its arrays without dimensions as {"__ndarray__": number}.
function faultOf(text) {
    let value;
    try {
        value = JSON.parse(String(text).replace(/\b(NaN|Infinity)\b/g, '1e999')); // Python writes what JSON does not know
    } catch {
        return `the final result is not JSON: ${brief(text)}`;
    }
    const number = Object(value) === value && 'default' in value ? value.default : value;
    const plain = number?.__ndarray__ ?? number;
    if (typeof plain !== 'number' && typeof plain !== 'boolean') {
        return `the final result is no number and no dict with a number as "default": ${brief(text)}`;
    }
    return Number.isFinite(Number(plain)) ? null : `the final result is not finite: ${brief(text)}`;
}

// Whether a report is passed to NNI's database. A second final result does not: NNI's page would show either of them.
function judge(trialId, metric, logger) {
    let type, value;
    try {
        ({ type, value } = JSON.parse(metric));
    } catch (error) {
        logger.warning(`Trial ${trialId} sent what is no report: ${error.message}`);
        return false;
    }
    if (type !== 'FINAL') {
        latest.set(trialId, metric);
        return true;
    }
    const first = finals.get(trialId);
    if (first) {
        first.fault ??= `reported more than one final result: ${brief(JSON.parse(first.metric).value)}, then ${brief(value)}`;
        return false;
    }
    finals.set(trialId, { metric, fault: faultOf(value) });
    return true;
}

// A trial may end by itself while the assessor's signal is on its way: this project's own says so (`interrupted`).
function endedWhole(final) {
    try {
        return JSON.parse(JSON.parse(final.metric).value).interrupted === 0;
    } catch {
        return false;
    }
}

// exitCode: null where a signal ended the trial, which plain NNI calls USER_CANCELED whoever sent it.
function settle(trial, exitCode) {
    const final = finals.get(trial.id);
    if (pruned.has(trial.id) && [0, null, 130].includes(exitCode) && !(final && endedWhole(final))) {
        trial.status = 'EARLY_STOPPED';
        trial.message = 'stopped by the assessor';
        return;
    }
    let fault = final ? final.fault : 'ended without a final result';
    if (exitCode === null) {
        fault = cancelled.has(trial.id) ? null : 'ended by a signal that NNI did not send (kill -9, often for want of memory)';
    } else if (exitCode !== 0) {
        fault = `exit code ${exitCode}`;
    }
    if (fault) {
        trial.status = 'FAILED';
        trial.message = fault;
    }
}

const reported = trialId => finals.get(trialId)?.metric;

// The result of a pruned trial as a report: its own, or else its last intermediate one, marked as cut short.
function soFar(trialId) {
    const final = finals.get(trialId);
    if (final) {
        return final.fault ? undefined : final.metric;
    }
    const metric = JSON.parse(latest.get(trialId) ?? 'null');
    if (!metric || faultOf(metric.value)) {
        return undefined;
    }
    const value = JSON.parse(metric.value);
    const result = { ...(value?.default === undefined ? { default: value } : value), interrupted: 1 };
    return JSON.stringify({ ...metric, type: 'FINAL', value: JSON.stringify(result) });
}

// What to tell the tuner instead of one command: a list of commands.
function commands(type, content) {
    if (type === 'ME') {
        const metric = JSON.parse(content);
        return metric.type === 'FINAL' || faultOf(metric.value) ? [] : [{ type, content }];
    }
    if (type === 'EN') {
        const { trial_job_id: trialId, event, hyper_params: recorded } = JSON.parse(content);
        const final = { SUCCEEDED: reported, EARLY_STOPPED: soFar }[event]?.(trialId);
        finals.delete(trialId);
        latest.delete(trialId);
        // A trial that a person added on the page is none of the tuner's; Evolution dies of its end.
        const isTuners = JSON.parse(recorded)?.parameter_id !== null;
        // NNI's Evolution dies of a trial that fails after its result: one that was pruned with a result is reported as succeeded.
        const end = final ? content.replace('"EARLY_STOPPED"', '"SUCCEEDED"') : content;
        return [...(final ? [{ type: 'ME', content: final }] : []), ...(isTuners ? [{ type, content: end }] : [])];
    }
    return [{ type, content }];
}

const quoted = word => `'${word.replaceAll("'", `'\\''`)}'`; // NNI starts its dispatcher through a shell

const COMPAT = 'training_service/v3/compat.js';
module.exports = {
    summary: 'trial end: one usable final result, sent to the tuner before the end of its trial',
    judge, settle, commands, cancelled, pruned,
    hasFinal: trialId => finals.has(trialId),
    dispatcher: python => [quoted(python), quoted(DISPATCHER)],
    edits: [
        [COMPAT, `            this.emitter.emit('metric', { id: trialId, data: metric });
`, `            if (${HERE}.judge(trialId, metric, logger)) {
                this.emitter.emit('metric', { id: trialId, data: metric });
            }
`],
        [COMPAT, `            trial.endTime = timestamp;
`, `            trial.endTime = timestamp;
            ${HERE}.settle(trial, exitCode);
`],
        [COMPAT, `            await this.v3.stopTrial(trialJobId);
`, `            ${HERE}.cancelled.add(trialJobId);
            await this.v3.stopTrial(trialJobId);
`],
        ['core/nnimanager.js', `this.log.info('cancelTrialJob:', content);
`, `this.log.info('cancelTrialJob:', content);
                ${HERE}.pruned.add(JSON.parse(content));
`],
        // A resume gives the tuner the results of trials that succeeded alone.
        ['core/nniDataStore.js', `if (jobInfo.status === 'SUCCEEDED') {`,
            `if (['SUCCEEDED', 'EARLY_STOPPED'].includes(jobInfo.status)) {`],
        ['core/tuner_command_channel.js', `this.channel.send({ type: commandType, content });`,
            `${HERE}.commands(commandType, content).forEach(command => this.channel.send(command));`],
        ['common/utils.js', `[globals_1.default.args.pythonInterpreter, '-m', 'nni', '--exp_params',`,
            `[...${HERE}.dispatcher(globals_1.default.args.pythonInterpreter), '--exp_params',`],
    ],
};
