// Preloaded into NNI's manager (NODE_OPTIONS=--require THIS). Repairs NNI 3.0's JavaScript while it is loaded; no file of
// NNI changes. Each repair is a table of exact texts that must occur once in NNI's file; if one does not fit, the manager
// ends with a line instead of running half repaired. By hand: `node preload.js NNI_NODE_FOLDER` says whether all fit.
'use strict';
const fs = require('fs');
const Module = require('module');
const path = require('path');

const load = name => require(`./${name}.js`);
const REPAIRS = ['start', 'records', 'network', 'gpu', 'trial_end', 'tensorboard'].map(load);
const OF_REMOTE = ['ssh', 'machines', 'results'].map(load);
const PLATFORMS = { local: REPAIRS, remote: [...REPAIRS, ...OF_REMOTE] };
const MAIN = /nni_node[\\/](common[\\/]trial_keeper[\\/])?main\.js$/; // of the manager; of a worker's trial keeper

// Map of absolute file name -> repaired text. Throws where NNI is another one than the repairs were written for.
function repairedFiles(folder, repairs = PLATFORMS.remote) {
    const { version } = JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8'));
    if (version !== '3.0.0') {
        throw new Error(`they are for NNI 3.0.0, this is ${version}`);
    }
    const texts = new Map();
    for (const { edits } of repairs) {
        for (const [name, from, to] of edits) {
            const file = path.join(folder, name);
            const parts = (texts.get(file) ?? fs.readFileSync(file, 'utf8')).split(from);
            if (parts.length !== 2) {
                throw new Error(`${file} holds "${from.trim().split('\n')[0]}" ${parts.length - 1} times, expected once`);
            }
            texts.set(file, parts.join(to));
        }
    }
    const main = path.join(folder, 'main.js');
    const started = "logger.info('Start NNI manager');";
    const say = repairs.map(({ summary }) => `(0, log_1.getLogger)('Repairs').info(${JSON.stringify(summary)});`).join('\n');
    texts.set(main, fs.readFileSync(main, 'utf8').replace(started, () => started + say));
    return texts;
}

function loadRepaired(texts) {
    const compile = Module.prototype._compile;
    Module.prototype._compile = function (content, filename) {
        return compile.call(this, texts.get(filename) ?? content, filename);
    };
}

function repair(folder) {
    const mode = process.argv[process.argv.indexOf('--mode') + 1];
    if (!Object.hasOwn(PLATFORMS, mode)) {
        throw new Error(`they know the platforms ${Object.keys(PLATFORMS).join(' and ')}, this is ${mode}`);
    }
    if (mode === 'remote') {
        process.umask(0o077); // the database, the logs and the workers' results are this user's
    }
    loadRepaired(repairedFiles(folder, PLATFORMS[mode]));
}

// The keeper's exit ends its trials: all are one process group.
function repairKeeper(folder) {
    process.on('exit', () => process.kill(-process.pid, 'SIGKILL'));
    for (const name of ['SSH_CLIENT', 'SSH2_CLIENT', 'SSH_CONNECTION']) {
        delete process.env[name]; // bash reads ~/.bashrc where it sees these, and its PATH would win over pythonPath
    }
    loadRepaired(repairedFiles(folder));
}

function refuse(error) {
    console.error(`The repairs of NNI do not fit: ${error.message}. To run NNI without them: FOOD11_NNI_REPAIRS=off`);
    process.exit(1);
}

try {
    if (require.main === module) {
        repairedFiles(process.argv[2]);
    } else if (process.env.FOOD11_NNI_REPAIRS !== 'off' && MAIN.test(process.argv[1] ?? '')) {
        // What they start (tuner, trials, TensorBoard) must not inherit this preload.
        process.env.NODE_OPTIONS = (process.env.NODE_OPTIONS ?? '').replace(/ *--require "[^"]*manager_js[^"]*preload\.js"/, '');
        const isKeeper = MAIN.exec(process.argv[1])[1] !== undefined;
        const folder = fs.realpathSync(path.join(path.dirname(process.argv[1]), isKeeper ? '../..' : '.'));
        isKeeper ? repairKeeper(folder) : repair(folder);
        process.env.FOOD11_NNI_REPAIRED = '1'; // for the trials: they need not wait after their result (trial_end.js)
    }
} catch (error) {
    refuse(error);
}

module.exports = { repairedFiles, loadRepaired };
