// As split.c. Warmed up before it is ready, so that what is measured is compiled code.
const fs = require('fs');
let sink = 1;
let unit = 20000;

function sevenParts() {
  let x = sink;
  for (let i = 0; i < 7 * unit; i++) x = (Math.imul(x, 1664525) + 1013904223) | 0;
  sink = x;
}

function threeParts() {
  let x = sink;
  for (let i = 0; i < 3 * unit; i++) x = (Math.imul(x, 1664525) + 1013904223) | 0;
  sink = x;
}

function work(rounds) {
  for (let i = 0; i < rounds; i++) {
    sevenParts();
    threeParts();
  }
}

const byte = Buffer.alloc(1);
for (let i = 0; i < 20; i++) work(50);
unit = 2000000;
fs.writeSync(1, 'ready\n');
fs.readSync(0, byte, 0, 1);
work(Number(process.argv[2]));
fs.writeSync(1, '{}\n');
while (fs.readSync(0, byte, 0, 1) > 0);
