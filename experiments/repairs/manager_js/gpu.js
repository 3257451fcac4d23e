// Fault: NNI never schedules all GPUs of a machine (it compares with >= where > is meant), asks again without a pause, and
// starts a Python process at each attempt, because the reading it keeps carries no time: over 250 at once, measured.
// Repair: the right comparison, readings kept for NNI's own 10 s and shared while under way; records.js makes the pause.
'use strict';
const HERE = `require(${JSON.stringify(__filename)})`;

// One collector at a time: who asks meanwhile gets the reading that is under way.
function shareReading(collect) {
    let underWay = null;
    return detailed => {
        underWay ??= collect(detailed).finally(() => { underWay = null; });
        return underWay;
    };
}

const SCHEDULER = 'common/trial_keeper/task_scheduler/scheduler.js';
const COLLECTOR = 'common/trial_keeper/task_scheduler/collect_info.js';
module.exports = {
    says: 'gpu: all GPUs can be scheduled, a trial that waits for one starts no collectors',
    shareReading,
    edits: [
        [SCHEDULER, `if (gpuNumber >= this.gpus.length) {`, `if (gpuNumber > this.gpus.length) {`],
        // Attempts are quiet: the reason is logged once a trial.
        [SCHEDULER, `logger.error(\`Only have`, `logger.debug(\`Only have`],
        ['common/trial_keeper/keeper.js', `this.log.info('Scheduling failed because`, `this.log.debug('Scheduling failed because`],
        ['training_service/local_v3/local.js', `this.log.warning('Failed to create trial')`, `this.log.debug('Failed to create trial')`],
        ['training_service/remote_v3/remote.js', `this.log.warning('Failed to create trial')`, `this.log.debug('Failed to create trial')`],
        // A reading that fails in the background would end the manager; no GPU left to share threw at each attempt.
        [SCHEDULER, `        this.update();
`, `        this.update().catch(error => logger.error('GPU reading:', error.message));
`],
        [SCHEDULER, `if (gpu.util + gpuNumber > 1.001) {`, `if (gpu === undefined || gpu.util + gpuNumber > 1.001) {`],
        [COLLECTOR, `cache = info;`, `cache = Object.assign(info, { timestamp: Date.now() });`],
        [COLLECTOR, `exports.collectGpuInfo = collectGpuInfo;`, `exports.collectGpuInfo = ${HERE}.shareReading(collectGpuInfo);`],
    ],
};
