// Preloaded into NNI's manager (NODE_OPTIONS=--require THIS). Repairs NNI 3.0's JavaScript while it is loaded; no file of
// NNI changes. Each repair is a table of exact texts that must occur once in NNI's file; if one does not fit, the manager
// ends with a line instead of running half repaired. By hand: `node preload.js NNI_NODE_FOLDER` says whether all fit.
'use strict';
const fs = require('fs');
const Module = require('module');
const path = require('path');

const REPAIRS = ['start', 'records', 'network', 'gpu', 'trial_end', 'tensorboard'].map(name => require(`./${name}.js`));
const PLATFORMS = ['local', 'remote'];

// Map of absolute file name -> repaired text. Throws where NNI is another one than the repairs were written for.
function repairedFiles(folder) {
    const { version } = JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8'));
    if (version !== '3.0.0') {
        throw new Error(`they are for NNI 3.0.0, this is ${version}`);
    }
    const texts = new Map();
    for (const { edits } of REPAIRS) {
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
    const say = REPAIRS.map(({ says }) => `(0, log_1.getLogger)('Repairs').info(${JSON.stringify(says)});`).join('\n');
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
    // The manager's children (tuner, trials, TensorBoard) must not inherit this preload.
    process.env.NODE_OPTIONS = (process.env.NODE_OPTIONS ?? '').replace(/ *--require "[^"]*manager_js[^"]*preload\.js"/, '');
    const mode = process.argv[process.argv.indexOf('--mode') + 1];
    if (!PLATFORMS.includes(mode)) {
        throw new Error(`they know the platforms ${PLATFORMS.join(' and ')}, this is ${mode}`);
    }
    loadRepaired(repairedFiles(folder));
    process.env.FOOD11_NNI_REPAIRED = '1'; // for the trials: they need not wait after their result (trial_end.js)
}

function refuse(error) {
    console.error(`The repairs of NNI do not fit: ${error.message}. To run NNI without them: FOOD11_NNI_REPAIRS=off`);
    process.exit(1);
}

try {
    if (require.main === module) {
        repairedFiles(process.argv[2]);
    } else if (process.env.FOOD11_NNI_REPAIRS !== 'off' && /nni_node[\\/]main\.js$/.test(process.argv[1] ?? '')) {
        repair(fs.realpathSync(path.dirname(process.argv[1])));
    }
} catch (error) {
    refuse(error);
}

module.exports = { repairedFiles, loadRepaired };
