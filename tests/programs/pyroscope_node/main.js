// A program that sends its profiles with Pyroscope's own client, as its users do: seven parts of its time to three.
const fs = require('fs/promises');
const { setTimeout: sleep } = require('timers/promises');
const Pyroscope = require('@pyroscope/nodejs');

const PART = 10_000_000;
const kept = [];
let sink = 1;

function spendSeven() {
  let x = sink;
  for (let i = 0; i < 7 * PART; i++) x = (Math.imul(x, 1664525) + 1013904223) | 0;
  sink = x;
}

function spendThree() {
  let x = sink;
  for (let i = 0; i < 3 * PART; i++) x = (Math.imul(x, 1664525) + 1013904223) | 0;
  sink = x;
}

// A megabyte of numbers on the heap.
function keepBytes() {
  kept.push(new Array(131_072).fill(0));
}

async function main() {
  Pyroscope.init({ tags: { version: 'v1.1', namespace: 'shop' } });
  Pyroscope.start();
  for (let i = 0; i < 17; i++) keepBytes();
  for (let i = 0; i < Number(process.argv[2]); i++) {
    spendSeven();
    spendThree();
    await sleep(20); // for the client: what it has not sent when the next profile is due is lost
  }
  // The client fails when it is stopped between its timer and the immediate that this sets. Here neither is pending:
  // files are answered after timers, and an immediate set then comes after theirs.
  await fs.stat('.');
  await new Promise(setImmediate);
  await Pyroscope.stop();
  console.log(sink, kept.length);
}

main();
