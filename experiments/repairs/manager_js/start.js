// Fault: a tuner that has not connected after 10 s ends the experiment with ERROR; importing it takes longer than that on a
// busy machine (microsoft/nni #5126, #3496).
// Repair: 120 s (at load 15 on two cores it took 45). A tuner that died meanwhile is found in its log by `launch` and `watch`.
'use strict';

const CHANNEL = 'core/tuner_command_channel.js';
module.exports = {
    says: 'start: the tuner has 120 s to connect',
    edits: [
        [CHANNEL, `Tuner did not connect in 10 seconds.`, `Tuner did not connect in 120 seconds.`],
        [CHANNEL, `}, 10000);`, `}, 120000);`],
    ],
};
