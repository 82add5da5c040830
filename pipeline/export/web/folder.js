"use strict";

// What the folder holds: the index, the network with its runtime, and small pictures.

const parts = {}; // name -> bytes that were loaded

/** The bytes of a file of this folder, counted under the name of a part. */
async function loaded(file, part) {
  let response;
  try {
    response = await fetch(file, { cache: "no-cache" }); // files of two exports do not fit together
  } catch {
    throw new Error(`${file} cannot be loaded: is this folder still served?`);
  }
  if (!response.ok) throw new Error(`${file}: the server answered ${response.status}.`);
  const bytes = await response.arrayBuffer();
  parts[part] = (parts[part] ?? 0) + bytes.byteLength;
  tellParts(parts);
  return bytes;
}

/** What was packed by gzip, unless the server has unpacked it already. */
async function unpacked(bytes) {
  const [first, second] = new Uint8Array(bytes);
  if (first !== 0x1f || second !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function openIndex() {
  const index = JSON.parse(new TextDecoder().decode(await loaded("index.json", "index")));
  const count = index.names.length;
  tellAbout(index);
  const vectors = await loaded("vectors.bin", "index");
  return { index, steps: new Float32Array(vectors, 0, count), numbers: new Int8Array(vectors, 4 * count) };
}

/** A function from the pixels of a view, red, green, blue, to a promise of its unit vector. */
async function openNetwork() {
  const [ort, program, network] = await Promise.all([
    import("./runtime/ort.js"),
    loaded("runtime/ort.wasm.gz", "runtime").then(unpacked),
    loaded("encoder.onnx", "network"),
  ]);
  ort.env.wasm.numThreads = 1; // several need headers that static servers do not send
  ort.env.wasm.wasmBinary = program;
  const session = await ort.InferenceSession.create(new Uint8Array(network), { executionProviders: ["wasm"] });
  return async (view) => {
    const sizePx = Math.sqrt(view.length / 3);
    const image = new ort.Tensor("uint8", view, [1, sizePx, sizePx, 3]);
    return (await session.run({ image })).embedding.data;
  };
}

/** A promise of {index, numbers, steps, embed}: all that a search needs. */
async function openAll() {
  const [opened, embed] = await Promise.all([openIndex(), openNetwork()]);
  await embed(new Uint8Array(opened.index.size_px ** 2 * 3)); // the first run is slow
  return { ...opened, embed };
}

const packs = new Map(); // number -> a promise of a Map from rows to pictures

function packOf(number, listed) {
  if (!packs.has(number)) {
    const load = async () => {
      const bytes = await loaded(`pictures-${number}.bin`, "pictures");
      let start = 0;
      return new Map(
        listed.map(([row, length]) => [row, new Blob([bytes.slice(start, (start += length))], { type: "image/webp" })]),
      );
    };
    packs.set(number, load());
    packs.get(number).catch(() => packs.delete(number));
  }
  return packs.get(number);
}

/** A small picture of a row; nothing where the export holds none. */
async function pictureOf(row) {
  const { pictures } = (await ready).index;
  const number = pictures.findIndex((pack) => pack[0][0] <= row && row <= pack.at(-1)[0]);
  return number < 0 ? undefined : (await packOf(number, pictures[number])).get(row);
}

/** The rest of the pictures, so that the page goes on when the server is gone. */
async function loadPictures() {
  const { pictures } = (await ready).index;
  for (const [number, listed] of pictures.entries()) await packOf(number, listed);
}
