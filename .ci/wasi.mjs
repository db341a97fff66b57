// Runs a WebAssembly program with WASI, for Node.js: it may read and write whatever this user may.
import { readFile } from "node:fs/promises";
import process from "node:process";
import { setFlagsFromString } from "node:v8";
import { WASI } from "node:wasi";

// What a library of `aegis` is made of; later versions need not be asked for it.
if (parseInt(process.versions.node) < 21) setFlagsFromString("--experimental-wasm-relaxed-simd");

const args = process.argv.slice(2);
const wasi = new WASI({ version: "preview1", args, env: process.env, preopens: { "/": "/" } });
const program = await WebAssembly.compile(await readFile(args[0]));
process.exitCode = wasi.start(await WebAssembly.instantiate(program, wasi.getImportObject()));
