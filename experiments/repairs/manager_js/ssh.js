// Fault: NNI's SSH connection has no listener for errors (a reset ends the manager), no keepalive (a pulled cable is noticed
// after a quarter of an hour), accepts any host key, runs `pip install nni --upgrade` on the worker, and leaves both the
// manager and the workers' keepers open to the network (microsoft/nni #1396: the worker must reach the manager).
// Repair: one SSH connection, checked against known_hosts, carries everything: keepers reach the manager through a tunnel to
// a channel that only they know. Keepers run repaired as the manager does; on a worker nothing is installed.
'use strict';
const HERE = `require(${JSON.stringify(__filename)})`;
const { execFileSync, spawnSync } = require('child_process');
const crypto = require('crypto');
const fs = require('fs');
const os = require('os');
const path = require('path');
const network = require('./network.js');

const SILENCE = { keepaliveInterval: 5000, keepaliveCountMax: 4 }; // a machine that answers nothing for 25 s is lost
const KEEPER_PINGS = 12; // a keeper pings every 5 s: without an answer for a minute it ends itself and its trials
const HANDSHAKE_MS = 10_000; // of a keeper that connects again
const VERSION = '3.0'; // of NNI, here and on every worker

const log = () => process.mainModule.require('common/log').getLogger('Repairs');
const firstLine = error => String(error?.message ?? error).trim().split('\n')[0];
const lastLine = text => text.trim().split('\n').pop();
const quoted = word => `'${word.replaceAll("'", `'\\''`)}'`;
const addressOf = ({ host, port }) => (port === 22 ? host : `[${host}]:${port}`);

// --- who is there: host keys and the login

// Keys of a machine in known_hosts: [{ type, key, isRevoked }]. ssh-keygen knows hashed names, ports and patterns.
function knownKeys(machine) {
    const files = [path.join(os.homedir(), '.ssh', 'known_hosts'), '/etc/ssh/ssh_known_hosts'].filter(file => fs.existsSync(file));
    const lines = files.flatMap(file => {
        const { error, stdout } = spawnSync('ssh-keygen', ['-F', addressOf(machine), '-f', file], { encoding: 'utf8' });
        if (error) {
            throw new Error(`ssh-keygen is needed to check host keys: ${error.message}`);
        }
        return stdout.split('\n').filter(line => line && !line.startsWith('#'));
    });
    return lines.map(line => line.split(/\s+/)).filter(([first]) => first !== '@cert-authority').map(words => {
        const isRevoked = words[0] === '@revoked';
        const [, type, key] = isRevoked ? words.slice(1) : words;
        return { type, key, isRevoked };
    });
}

const scan = ({ host, port }) => `ssh-keyscan -p ${port} ${host} >> ~/.ssh/known_hosts`;

// Algorithms in the order in which to ask for them: the kinds of key that known_hosts has come first.
function hostKeyAlgorithms(known) {
    const all = ['ssh-ed25519', 'ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp384', 'ecdsa-sha2-nistp521', 'rsa-sha2-512', 'rsa-sha2-256'];
    const kinds = known.flatMap(({ type }) => (type === 'ssh-rsa' ? ['rsa-sha2-512', 'rsa-sha2-256'] : [type]));
    return [...new Set([...kinds.filter(kind => all.includes(kind)), ...all])];
}

// The options of a login with a key, or with the agent where the key has a passphrase.
function login(options, machine) {
    const agent = process.env.SSH_AUTH_SOCK;
    const { privateKey, password, passphrase, ...rest } = options; // passwords are refused by machines.js
    const { parseKey } = process.mainModule.require('ssh2').utils;
    const fault = privateKey && parseKey(privateKey);
    if (!(fault instanceof Error)) {
        return { ...rest, privateKey, agent };
    }
    if (!agent) {
        throw new Error(`${machine.sshKeyFile} cannot be used (${fault.message}); a key with a passphrase needs an agent: ssh-add ${machine.sshKeyFile}`);
    }
    return { ...rest, agent };
}

// In place of Ssh.connect's last lines. Later errors and the end of the connection go to ssh.onGone.
async function connect(ssh, client, options) {
    const machine = ssh.config;
    const known = knownKeys(machine);
    if (known.length === 0) {
        throw new Error(`its host key is not in ~/.ssh/known_hosts; add it, and compare it with the machine's own: ${scan(machine)}`);
    }
    const hostVerifier = key => known.some(one => one.key === key.toString('base64') && !one.isRevoked);
    const algorithms = { serverHostKey: hostKeyAlgorithms(known) };
    await new Promise((resolve, reject) => {
        let reason = 'its SSH connection has ended';
        client.on('ready', resolve);
        client.on('error', error => {
            reason = explained(error, machine);
            reject(new Error(reason));
        });
        client.on('close', () => {
            reject(new Error(reason));
            ssh.onGone?.(reason);
        });
        client.connect({ ...login(options, machine), ...SILENCE, hostVerifier, algorithms });
    });
    client.on('tcp connection', (info, accept) => network.inject(accept()));
}

function explained(error, machine) {
    const text = firstLine(error);
    if (/verification failed/.test(text)) {
        return 'its host key is another one than in ~/.ssh/known_hosts: another machine answers there, or it was installed anew; '
            + `where that is meant: ssh-keygen -R '${addressOf(machine)}' && ${scan(machine)}`;
    }
    if (/authentication methods failed/.test(text)) {
        return `${text}: it refuses ${machine.sshKeyFile} for ${machine.user} (try: ssh -p ${machine.port} -i ${machine.sshKeyFile} ${machine.user}@${machine.host})`;
    }
    return /Keepalive/i.test(text) ? 'it has answered nothing for 25 s' : text;
}

// --- what is there: Python and its packages

const ASK = `
import importlib.metadata as metadata, importlib.util as util, json, sys
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
folders = getattr(util.find_spec("nni"), "submodule_search_locations", None) or [None]
versions = {name: version(name) for name in ("nni", "torch")}
print(json.dumps({"python": sys.version.split()[0], "executable": sys.executable, "folder": folders[0], **versions}))
`;

// In place of the installation of NNI.
async function requirePackages(worker, trialCommand) {
    const answer = await worker.ssh.exec(`${worker.python} -c ${quoted(ASK)}`);
    if (answer.code !== 0) {
        throw new Error(`its Python does not run: ${lastLine(answer.stderr)}`);
    }
    const packages = JSON.parse(lastLine(answer.stdout));
    const isOurs = /^\s*python[\d.]*\s+-m\s+trial\b/.test(trialCommand ?? '');
    const next = 'install requirements.txt there, and name the bin folder of that environment as pythonPath';
    if (packages.nni !== VERSION || !packages.folder) {
        const there = packages.nni ? `NNI ${packages.nni}, expected ${VERSION}` : 'no NNI';
        throw new Error(`${packages.executable} (Python ${packages.python}) has ${there}; ${next}`);
    }
    if (isOurs && !packages.torch) {
        throw new Error(`${packages.executable} (Python ${packages.python}) has no torch; ${next}`);
    }
    worker.launcher = `${packages.folder}/tools/nni_manager_scripts/launch_trial_keeper.py`; // importing nni takes seconds
    worker.log.info(`${worker.config.host}: Python ${packages.python}, NNI ${packages.nni}${packages.torch ? `, torch ${packages.torch}` : ''}`);
}

// --- the keeper on the worker

// Makes the keeper's folder, and ends what ran for this machine before: a keeper that outlived its manager or its connection,
// and its trials, all of one process group, or without it where it was killed. The experiment's folder becomes the user's own:
// it holds the channel's name.
const PREPARE = `
import itertools, os, pathlib, signal, sys
experiment = pathlib.Path.home() / "nni-experiments" / sys.argv[1]
environment = experiment / "environments" / sys.argv[2]
(environment / "manager_js").mkdir(parents=True, exist_ok=True)
os.chmod(experiment, 0o700)
for file in environment.glob("trial_keeper*/trial_keeper.pid"):
    try:
        pid = int(file.read_text())
        if str(file.parent) in pathlib.Path("/proc", str(pid), "cmdline").read_text().split(chr(0)):
            os.killpg(pid, signal.SIGKILL)
    except (OSError, ValueError):
        pass
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if f"NNI_OUTPUT_DIR={environment}/" in (process / "environ").read_text(errors="replace"):
            os.kill(int(process.name), signal.SIGKILL)
    except OSError:
        pass
names = itertools.chain(["trial_keeper"], (f"trial_keeper_{number}" for number in itertools.count(1)))
keeper = next(environment / name for name in names if not (environment / name).exists())
keeper.mkdir()
print(keeper)
`;

// Ships the repairs and opens the way back. Returns the keeper's folder there, and what comes before the command that starts it.
async function prepareKeeper(worker) {
    const { experimentId } = globalThis.nni.args;
    const folder = await worker.ssh.run(`${worker.python} -c ${quoted(PREPARE)} ${experimentId} ${worker.envId}`);
    const repairs = path.posix.join(path.posix.dirname(folder), 'manager_js');
    for (const name of fs.readdirSync(__dirname).filter(name => name.endsWith('.js'))) {
        await worker.ssh.upload(path.join(__dirname, name), path.posix.join(repairs, name));
    }
    const port = await new Promise((resolve, reject) => worker.ssh.client.forwardIn('127.0.0.1', 0, (error, port) => (error
        ? reject(new Error(`its SSH server forwards no port (${firstLine(error)}): allow AllowTcpForwarding in its sshd_config`))
        : resolve(port))));
    worker.channelUrl = `ws://127.0.0.1:${port}${worker.channelPath}`;
    const options = `--require ${JSON.stringify(path.posix.join(repairs, 'preload.js'))}`;
    const environment = `NODE_OPTIONS=${quoted(options)} FOOD11_REVISION=${quoted(revision(worker.codeDirectory))}`;
    return { folder, command: `${environment} ${worker.python} ${quoted(worker.launcher)} ${quoted(folder)}` };
}

// Of the code that is uploaded without its .git: what trial/result.py says of it here.
function revision(folder) {
    const git = (...words) => execFileSync('git', ['--no-optional-locks', '-C', folder, ...words], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    try {
        const [top, commit] = git('rev-parse', '--show-toplevel', 'HEAD').trim().split('\n');
        if (fs.realpathSync(top) !== fs.realpathSync(folder)) {
            return 'unknown';
        }
        return commit + (git('status', '--porcelain', '--untracked-files=no') ? '+changes' : '');
    } catch {
        return 'unknown';
    }
}

// The path of a new channel, which its worker alone knows and network.js opens to nobody else.
function newChannel(url) {
    const { pathname } = new URL(url);
    network.channels.add(pathname);
    return pathname;
}

const newSecret = () => crypto.randomBytes(16).toString('hex');

// --- in the keeper's process

const isKeeper = () => globalThis.nni.args.environmentId !== undefined;

// NNI's heartbeat takes what the local end of the tunnel has buffered for an answer. Here a pong is one, and nothing else.
function beat(connection) {
    if (isKeeper() && connection.missingPongs > KEEPER_PINGS) {
        connection.emit('close', 4001, 'the manager has not answered for a minute');
        connection.terminate('the manager has not answered for a minute');
        return false;
    }
    return isKeeper() || connection.missingPongs <= 3;
}

const SSH = 'training_service/remote_v3/ssh.js';
const WORKER = 'training_service/remote_v3/worker.js';
const CONNECTION = 'common/command_channel/websocket/connection.js';
module.exports = {
    summary: 'ssh: host keys checked, losses noticed within 30 s, all of a worker through one tunnel, its keeper repaired',
    HANDSHAKE_MS, firstLine, log, connect, requirePackages, prepareKeeper, newChannel, newSecret, beat,
    knownKeys, hostKeyAlgorithms, revision,
    edits: [
        [SSH, `        this.client.connect(sshConfig);
        await node_events_1.default.once(this.client, 'ready');`, `        await ${HERE}.connect(this, this.client, sshConfig);`],
        [WORKER, `        this.log.info('Installing nni and dependencies...');
        await this.ssh.run(\`\${this.python} -m pip install nni --upgrade\`);
        const remoteVersion = await this.ssh.run(\`\${this.python} -c "import nni ; print(nni.__version__)"\`);
        this.log.info(\`Installed nni v\${remoteVersion}\`);
        const localVersion = await (0, pythonScript_1.runPythonScript)('import nni ; print(nni.__version__)');
        if (localVersion.trim() !== remoteVersion.trim()) {
            this.log.error(\`NNI version mismatch. Local: \${localVersion.trim()} ; SSH server: \${remoteVersion}\`);
        }
`, `        await ${HERE}.requirePackages(this, this.trialCommand);
`],
        [WORKER, `        const prepareCommand = [
            this.python,
            '-m nni.tools.nni_manager_scripts.create_trial_keeper_dir',
            globals_1.globals.args.experimentId,
            this.envId,
        ].join(' ');
        const trialKeeperDir = await this.ssh.run(prepareCommand);
`, `        const { folder: trialKeeperDir, command: launchCommand } = await ${HERE}.prepareKeeper(this);
`],
        [WORKER, `        const launchCommand = \`\${this.python} -m nni.tools.nni_manager_scripts.launch_trial_keeper \${trialKeeperDir}\`;
`, ''],
        [WORKER, `            throw new Error('Failed to launch trial keeper daemon');`,
            `            throw new Error('its trial keeper did not start: ' + String(result.stderr ?? '').trim().split('\\n').pop());`],
        [CONNECTION, `        if (this.missingPongs > 3) {`, `        if (!${HERE}.beat(this)) {
            if (this.closing)
                return;`],
        // Its heartbeat went on after its end.
        [CONNECTION, `    handleClose(code, reason) {
`, `    handleClose(code, reason) {
        clearInterval(this.heartbeatTimer);
`],
        ['common/command_channel/websocket/client.js', `new ws_1.WebSocket(this.url, { maxPayload })`,
            `new ws_1.WebSocket(this.url, { maxPayload, handshakeTimeout: ${HERE}.HANDSHAKE_MS })`],
    ],
};
