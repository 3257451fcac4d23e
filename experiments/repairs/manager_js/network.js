// Fault: NNI serves its page, REST and channels on every address, without a password and without looking at Host and
// Origin, and /trial-file reads any file: whoever reaches the port can run code (microsoft/nni #1542).
// Repair: loopback only, this machine's names and the page's own origin only, files of the trial's folder only. With
// remote machines the port is open to their addresses alone, and there only the channel that workers connect to.
'use strict';
const HERE = `require(${JSON.stringify(__filename)})`;
const dns = require('dns');
const fs = require('fs');
const path = require('path');

const LOOPBACK = /^(127\.\d+\.\d+\.\d+|::1)$/;
const OUR_NAMES = /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/i;
const workers = new Set(); // addresses of the machine list
const refused = new Set(); // addresses already logged

const addressOf = socket => (socket.remoteAddress ?? '').replace(/^::ffff:/, '');
const log = () => process.mainModule.require('common/log').getLogger('Repairs'); // not there yet when this file is loaded

// Why a request is refused, null where it is not.
function fault(request) {
    const { host, origin, 'sec-fetch-site': site, 'sec-fetch-mode': mode } = request.headers;
    const { urlPrefix } = globalThis.nni.args;
    if (!LOOPBACK.test(addressOf(request.socket))) {
        const channel = `${urlPrefix ? `/${urlPrefix}` : ''}/platform/`;
        const isWorker = request.headers.upgrade && request.url.startsWith(channel) && origin === undefined;
        return isWorker ? null : 'from another machine only the channel of remote workers is open';
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
    if (globalThis.nni.args.mode !== 'remote') {
        return app.listen(port, '127.0.0.1');
    }
    const server = app.listen(port);
    server.prependListener('connection', socket => {
        const address = addressOf(socket);
        if (LOOPBACK.test(address) || workers.has(address)) {
            return;
        }
        socket.destroy();
        if (!refused.has(address)) {
            log().warning(`Refused ${address}: not an address of trainingService.machineList`);
        }
        refused.add(address);
    });
    return server;
}

// Let the machines of the list connect.
async function openTo(machines) {
    const found = await Promise.all(machines.map(({ host }) => dns.promises.lookup(host, { all: true })));
    found.flat().forEach(({ address }) => workers.add(address));
    log().info(`The workers' channel is open to ${[...workers].join(', ')}`);
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
    says: 'network: loopback only, Host and Origin checked, files of the trial only',
    guard, verifyClient, listen, openTo, insideTrial, checkTrialId,
    edits: [
        [REST, `this.app = (0, express_1.default)();`, `this.app = (0, express_1.default)();
        this.app.use(${HERE}.guard);`],
        [REST, `{ maxPayload: 4 * 1024 * 1024 * 1024 }`,
            `{ maxPayload: 4 * 1024 * 1024 * 1024, verifyClient: ${HERE}.verifyClient }`],
        ['rest_server/index.js', `this.server = app.listen(this.port);`,
            `this.server = ${HERE}.listen(app, this.port);`],
        ['training_service/remote_v3/remote.js', `await this.server.start();`,
            `await this.server.start();
        await ${HERE}.openTo(this.config.machineList);`],
        [COMPAT, `    async getTrialFile(trialJobId, fileName) {
`, `    async getTrialFile(trialJobId, fileName) {
        ${HERE}.checkTrialId(trialJobId);
`],
        [COMPAT, `(0, promises_1.readFile)(path_1.default.join(dir, fileName))`,
            `(0, promises_1.readFile)(${HERE}.insideTrial(dir, fileName))`],
    ],
};
