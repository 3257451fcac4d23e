// Fault: the page's TensorBoard button looks in a folder that NNI 3.0 no longer writes, on every address, and breaks at a
// space in a path.
// Repair: the trial's own folder, on loopback, with the manager's Python.
'use strict';
const NETWORK = `require(${JSON.stringify(require.resolve('./network.js'))})`;

const TENSORBOARD = 'extensions/nniTensorboardManager.js';
module.exports = {
    says: "tensorboard: the trial's own folder, on loopback",
    edits: [
        ['training_service/v3/compat.js', `return path_1.default.join(globals_1.default.paths.experimentRoot, 'trials', trialJobId, 'output');`,
            `${NETWORK}.checkTrialId(trialJobId);
        return await this.v3.downloadTrialDirectory(trialJobId);`],
        [TENSORBOARD, `logdirCmd = '--bind_all --logdir_spec';`, `logdirCmd = '--host 127.0.0.1 --logdir_spec';`],
        [TENSORBOARD, `const host = 'localhost';`, `const host = '127.0.0.1';`],
        [TENSORBOARD, "return ['tensorboard', `${logdirCmd}=${logRealPaths.join(',')}`,",
            "return [`\"${globals_1.globals.args.pythonInterpreter}\" -m tensorboard.main`, `${logdirCmd}=\"${logRealPaths.join(',')}\"`,"],
    ],
};
