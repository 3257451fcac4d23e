// Fault: NNI serves its page, REST and channels on every address, without a password and without looking at Host and
// Origin, and /trial-file reads any file: whoever reaches the port can run code (microsoft/nni #1542).
// Repair: loopback only, this machine's names and the page's own origin only, files of the trial's folder only. Remote
// workers come through SSH (ssh.js) and reach their own channel only. NNI's reuseMode would open a second port: refused.
'use strict';
const HERE = `require(${JSON.stringify(__filename)})`;
const fs = require('fs');
const path = require('path');

const LOOPBACK = /^(127\.\d+\.\d+\.\d+|::1)$/;
const OUR_NAMES = /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/i;
const channels = new Set(); // paths of the workers' channels, each known to one worker

const addressOf = socket => (socket.remoteAddress ?? '').replace(/^::ffff:/, '');
let server = null;

// Why a request is refused, null where it is not.
function fault(request) {
    const { host, origin, 'sec-fetch-site': site, 'sec-fetch-mode': mode } = request.headers;
    if (request.socket.isFromWorker) {
        const name = request.url.replace(/\/\.websocket$/, ''); // express-ws's own ending
        const isChannel = request.headers.upgrade && channels.has(name) && origin === undefined;
        return isChannel ? null : 'through SSH a worker reaches its own channel only';
    }
    if (!LOOPBACK.test(addressOf(request.socket))) {
        return 'sent by another machine';
    }
    const { urlPrefix } = globalThis.nni.args;
    if (request.url.toLowerCase().startsWith(`${urlPrefix ? `/${urlPrefix}` : ''}/platform/`.toLowerCase())) {
        return 'workers come through SSH';
    }
    if (!OUR_NAMES.test(host ?? '')) {
        return `Host ${host} is not a name of this machine's loopback`;
    }
    if (origin !== undefined && origin !== `http://${host}`) {
        return `Origin ${origin} is not this page`;
    }
    const isLink = request.method === 'GET' && mode === 'navigate';
    return ['cross-site', 'same-site'].includes(site) && !isLink ? 'sent by a page of another origin' : null;
}

function guard(request, response, next) {
    const reason = fault(request);
    if (reason === null) {
        next();
    } else {
        response.status(403).type('text/plain').send(`Refused: ${reason}. Open http://localhost:PORT instead.\n`);
    }
}

const verifyClient = ({ req }, done) => done(fault(req) === null, 403);

function listen(app, port) {
    server = app.listen(port, '127.0.0.1');
    return server;
}

// A connection of a worker, which SSH brought here.
function inject(stream) {
    stream.isFromWorker = true;
    for (const name of ['setTimeout', 'setNoDelay', 'setKeepAlive']) { // of a socket, which the HTTP server expects
        stream[name] ??= () => stream;
    }
    server.emit('connection', stream);
}

// reuseMode and hybrid are broken in NNI 3.0, and open the next port to everyone.
function refuseReuse({ trainingService }) {
    if (Array.isArray(trainingService)) {
        throw new Error('trainingService is a list (hybrid), which is broken in NNI 3.0: name one platform, local or remote');
    }
    if (trainingService.reuseMode) {
        throw new Error('reuseMode is broken in NNI 3.0: remove it from trainingService');
    }
}

// Name of a file in a trial's folder. Throws for any other one, symbolic links out of the folder among them.
function insideTrial(folder, file) {
    const name = fs.realpathSync(path.join(folder, file));
    if (!name.startsWith(fs.realpathSync(folder) + path.sep)) {
        throw new Error(`${file} is not in the trial's folder`);
    }
    return name;
}

function checkTrialId(trialId) {
    if (!/^\w+$/.test(trialId)) {
        throw new Error(`${trialId} is not a trial id`);
    }
}

const REST = 'common/globals/rest.js';
const COMPAT = 'training_service/v3/compat.js';
module.exports = {
    summary: 'network: loopback only, Host and Origin checked, files of the trial only',
    channels, guard, verifyClient, listen, inject, refuseReuse, insideTrial, checkTrialId,
    edits: [
        [REST, `this.app = (0, express_1.default)();`, `this.app = (0, express_1.default)();
        this.app.use(${HERE}.guard);`],
        [REST, `{ maxPayload: 4 * 1024 * 1024 * 1024 }`,
            `{ maxPayload: 4 * 1024 * 1024 * 1024, verifyClient: ${HERE}.verifyClient }`],
        ['rest_server/index.js', `this.server = app.listen(this.port);`,
            `this.server = ${HERE}.listen(app, this.port);`],
        ['rest_server/core.js', `this.server = app.listen(this.port);`, // of a worker's trial keeper
            `this.server = ${HERE}.listen(app, this.port);`],
        ['core/nnimanager.js', `        const reuseMode = Array.isArray(`, `        ${HERE}.refuseReuse(config);
        const reuseMode = Array.isArray(`],
        [COMPAT, `    async getTrialFile(trialJobId, fileName) {
`, `    async getTrialFile(trialJobId, fileName) {
        ${HERE}.checkTrialId(trialJobId);
`],
        [COMPAT, `(0, promises_1.readFile)(path_1.default.join(dir, fileName))`,
            `(0, promises_1.readFile)(${HERE}.insideTrial(dir, fileName))`],
    ],
};
