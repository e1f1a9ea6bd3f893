// An episode's arrays: from its own files where the page comes from a web server, else from the scripts beside the page,
// which hold the same bytes. Formats: zip (APPNOTE 6.3), NumPy's .npy (numpy.lib.format).

/** What an array may unpack to, and what is fetched of one: whatever a file claims of itself. */
const MAX_UNPACKED = 64e6, MAX_FETCHED = 16e6, MAX_WHOLE = 128e6;
/** Bytes of a step above which an array isn't fetched: a picture that isn't drawn as curves. */
const MAX_STEP = 4096;
const SHOWN_ARRAYS = /^(actions|rewards|probs|action_mean|action_std|entropy|values|q_values|obs|obs\..+)$/;

/** The arrays that there are, by name: {shape, values}, each with a row per step. */
async function loadArrays(episode) {
  const isServed = location.protocol.startsWith("http");
  const sources = isServed ? [servedArrays, scriptArrays] : [scriptArrays];
  for (const source of sources) {
    const packed = await source(episode).catch(() => null);
    if (packed && packed.size) return Object.assign(await unpackAll(packed, episode.length), { isCut: packed.isCut });
  }
  return new Map();
}

async function unpackAll(packed, length) {
  const arrays = new Map();
  await Promise.all([...packed].map(async ([name, { method, bytes: content }]) => {
    try {
      const array = parseNpy(method === 8 ? await inflate(content) : content);
      if (array.shape[0] === length && !isPicture(array)) arrays.set(name, array);
    } catch { /* damaged, or of a kind that isn't drawn: verify.py tells */ }
  }));
  return arrays;
}

/** Whether a step is a picture: pixels are no curves. */
function isPicture({ shape, code }) {
  return shape.length >= 3 && (code === "u1" || shape.slice(1).reduce((product, side) => product * side, 1) > MAX_STEP / 8);
}

/** From the script beside the page. */
async function scriptArrays(episode) {
  if (episode.chunk === null) return new Map();
  const found = (await load(`${episode.piece}-${episode.chunk}`))[String(episode.n)] ?? {};
  const arrays = new Map(Object.entries(found).flatMap(([name, packed]) => (packed ? [[name, { method: packed[0], bytes: bytes(packed[1]) }]] : [])));
  arrays.isCut = Object.values(found).includes(null); // some are too large for scripts
  return arrays;
}

/** From the episode's own files. */
async function servedArrays(episode) {
  const curve = async (kind) => {
    const response = await fetch(episode.file(kind));
    return response.ok && Number(response.headers.get("content-length") ?? 0) <= MAX_UNPACKED
      ? [[kind, { method: 0, bytes: new Uint8Array(await response.arrayBuffer()) }]] : [];
  };
  const parts = await Promise.all([
    curve("rewards"), curve("uncertainty"), episode.has("arrays") ? members(episode.file("episodes"), episode.length).catch(() => []) : [],
  ]);
  return new Map(parts.flat());
}

/** The members of an .npz on a server that are drawn: its end is fetched, then each of them. */
async function members(url, length) {
  const tail = await part(url, "bytes=-65557");
  const view = new DataView(tail.bytes.buffer);
  let end = tail.bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end -= 1;
  if (end < 0) throw new Error("no zip");
  const size = view.getUint32(end + 12, true), start = view.getUint32(end + 16, true);
  if (size > 1e6) throw new Error("a list of members that is too long");
  const list = start >= tail.start ? tail.bytes.slice(start - tail.start, start - tail.start + size)
    : (await part(url, `bytes=${start}-${start + size - 1}`)).bytes;
  const small = listed(list).filter((member) => member.unpacked <= 1024 + MAX_STEP * length);
  return (await Promise.all(small.map(async (member) => {
    const content = await memberBytes(url, tail, member).catch(() => null);
    return content ? [[member.name === "rewards" ? "step_rewards" : member.name, { method: member.method, bytes: content }]] : [];
  }))).flat();
}

function listed(list) {
  const view = new DataView(list.buffer, list.byteOffset, list.byteLength), found = [];
  for (let at = 0; at + 46 <= list.length && view.getUint32(at, true) === 0x02014b50;) {
    const nameBytes = view.getUint16(at + 28, true);
    const name = new TextDecoder().decode(list.subarray(at + 46, at + 46 + nameBytes)).replace(/\.npy$/, "");
    const member = { name, nameBytes, method: view.getUint16(at + 10, true), packed: view.getUint32(at + 20, true),
      unpacked: view.getUint32(at + 24, true), at: view.getUint32(at + 42, true) };
    if (SHOWN_ARRAYS.test(name) && member.packed <= MAX_FETCHED && (member.method === 0 || member.method === 8)) found.push(member);
    at += 46 + nameBytes + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return found;
}

async function memberBytes(url, tail, member) {
  // How long a member's own header is tells only that header: 256 more bytes than it needs.
  const last = member.at + 30 + member.nameBytes + 256 + member.packed;
  const from = member.at >= tail.start ? tail : await part(url, `bytes=${member.at}-${last}`);
  const at = member.at - from.start;
  const view = new DataView(from.bytes.buffer);
  const start = at + 30 + view.getUint16(at + 26, true) + view.getUint16(at + 28, true);
  return from.bytes.slice(start, start + member.packed);
}

/** A part of a file: its bytes and where they begin; all of it where the server knows no ranges. */
async function part(url, range) {
  const stop = new AbortController();
  const response = await fetch(url, { headers: { Range: range }, signal: stop.signal });
  if (!response.ok || (response.status === 200 && Number(response.headers.get("content-length") ?? 0) > MAX_WHOLE)) {
    stop.abort();
    throw new Error("no such file, or too large a one");
  }
  const start = response.status === 206 ? Number(/bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1] ?? NaN) : 0;
  if (Number.isNaN(start)) throw new Error("which part it is isn't said");
  return { start, bytes: new Uint8Array(await response.arrayBuffer()) };
}

async function inflate(content) {
  const reader = new Blob([content]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  const parts = [];
  let size = 0;
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
    size += value.length;
    if (size > MAX_UNPACKED) {
      reader.cancel();
      throw new Error("unpacks to too much");
    }
    parts.push(value);
  }
  const whole = new Uint8Array(size);
  parts.reduce((at, value) => (whole.set(value, at), at + value.length), 0);
  return whole;
}

const NUMBER_ARRAYS = {
  f4: Float32Array, f8: Float64Array, i1: Int8Array, i2: Int16Array, i4: Int32Array, i8: BigInt64Array,
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, u8: BigUint64Array, b1: Uint8Array,
};

/** A .npy file of numbers: {shape, code, values}, in C order; the code is NumPy's, without the byte order. */
function parseNpy(content) {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  const isLong = content[6] > 1;
  const start = (isLong ? 12 : 10) + (isLong ? view.getUint32(8, true) : view.getUint16(8, true));
  const header = new TextDecoder("latin1").decode(content.subarray(10, start));
  const [, order, code] = /'descr': '([<|=])([fiub]\d)'/.exec(header) ?? [];
  const shape = (/'shape': \(([\d, ]*)\)/.exec(header)?.[1] ?? "").split(",").filter((side) => side.trim()).map(Number);
  const Numbers = code === "f2" ? Uint16Array : NUMBER_ARRAYS[code];
  if (!order || !Numbers || header.includes("'fortran_order': True")) throw new Error("not an array that is drawn");
  const count = shape.reduce((product, side) => product * side, 1);
  if (content.length - start !== count * Numbers.BYTES_PER_ELEMENT) throw new Error("of another length than it claims");
  const values = new Numbers(content.slice(start).buffer);
  if (code === "f2") return { shape, code, values: Float32Array.from(values, fromHalf) };
  return { shape, code, values: typeof values[0] === "bigint" ? Float64Array.from(values, Number) : values };
}

/** The number that 16 bits hold (IEEE 754, binary16). */
function fromHalf(bits) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const size = exponent === 31 ? (fraction ? NaN : Infinity)
    : exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
  return bits >> 15 ? -size : size;
}

function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
