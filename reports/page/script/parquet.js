// A Parquet file of one table, made in the page: one row group, plain encoding, no compression.
// After the description of the file format by Apache Parquet, whose metadata is in thrift's compact protocol.
const parquet = (() => {
  "use strict";
  const I32 = 5, I64 = 6, BINARY = 8, LIST = 9, STRUCT = 12;
  const BOOLEAN = 0, INT64 = 2, DOUBLE = 5, BYTE_ARRAY = 6;
  const utf8 = new TextEncoder();
  const varint = (value) => {
    const bytes = [];
    for (let rest = BigInt(value); ; rest >>= 7n) {
      if (rest < 128n) return [...bytes, Number(rest)];
      bytes.push(Number(rest & 127n) | 128);
    }
  };
  const zigzag = (value) => varint(BigInt(value) * 2n);  // nothing here is negative
  const binary = (text) => { const bytes = utf8.encode(text); return [...varint(bytes.length), ...bytes]; };
  // fields: [number, type, bytes], rising numbers
  const struct = (...fields) => {
    let before = 0;
    const bytes = [];
    for (const [number, type, value] of fields) {
      bytes.push(((number - before) << 4) | type, ...value);
      before = number;
    }
    return [...bytes, 0];
  };
  const list = (type, items) => [...(items.length < 15 ? [(items.length << 4) | type] : [0xf0 | type, ...varint(items.length)]), ...items.flat()];
  const i32 = (number, value) => [number, I32, zigzag(value)];
  const i64 = (number, value) => [number, I64, zigzag(value)];
  const joined = (parts) => {
    const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) { whole.set(part, at); at += part.length; }
    return whole;
  };
  const kindOf = (values) => {
    const known = values.filter((value) => value !== null);
    if (known.length && known.every((value) => typeof value === "boolean")) return BOOLEAN;
    if (!known.length || !known.every((value) => typeof value === "number")) return BYTE_ARRAY;
    return known.every(Number.isSafeInteger) ? INT64 : DOUBLE;
  };
  const bits = (flags) => {
    const bytes = new Uint8Array(Math.ceil(flags.length / 8));
    flags.forEach((flag, at) => { if (flag) bytes[at >> 3] |= 1 << (at & 7); });
    return bytes;
  };
  const little = (length) => new Uint8Array(new Uint32Array([length]).buffer);
  const plain = (kind, known) => {
    if (kind === BOOLEAN) return bits(known);
    if (kind === DOUBLE) return new Uint8Array(new Float64Array(known).buffer);
    if (kind === INT64) return new Uint8Array(new BigInt64Array(known.map(BigInt)).buffer);
    return joined(known.flatMap((value) => { const bytes = utf8.encode(String(value)); return [little(bytes.length), bytes]; }));
  };
  const page = (kind, values) => {
    const there = bits(values.map((value) => value !== null));
    const levels = joined([varint((there.length << 1) | 1), there]);
    const body = joined([little(levels.length), levels, plain(kind, values.filter((value) => value !== null))]);
    const header = struct([5, STRUCT, struct(i32(1, values.length), i32(2, 0), i32(3, 3), i32(4, 3))]);
    const sizes = struct(i32(1, 0), i32(2, body.length), i32(3, body.length)).slice(0, -1);
    header[0] = (2 << 4) | STRUCT;  // field 5 after field 3
    return joined([sizes, header, body]);
  };
  // rows of cells, the names of the columns first; a cell is text, a number, a boolean or null.
  // `attributes` is what the table says of itself, where pandas looks for it.
  return ([names, ...rows], attributes) => {
    const seen = new Map();
    const columns = names.map((name, at) => {
      const times = (seen.get(name) || 0) + 1;
      seen.set(name, times);
      const values = rows.map((row) => row[at] ?? null);
      return { name: times > 1 ? `${name} (${times})` : name, kind: kindOf(values), values };
    });
    const parts = [utf8.encode("PAR1")];
    let at = 4;
    const chunks = columns.map(({ name, kind, values }) => {
      const bytes = page(kind, values), offset = at;
      parts.push(bytes);
      at += bytes.length;
      return struct(i64(2, offset), [3, STRUCT, struct(
        i32(1, kind), [2, LIST, list(I32, [zigzag(0), zigzag(3)])], [3, LIST, list(BINARY, [binary(name)])],
        i32(4, 0), i64(5, values.length), i64(6, bytes.length), i64(7, bytes.length), i64(9, offset))]);
    });
    const schema = [
      struct([4, BINARY, binary("table")], i32(5, columns.length)),
      ...columns.map(({ name, kind }) => struct(i32(1, kind), i32(3, 1), [4, BINARY, binary(name)],
        ...(kind === BYTE_ARRAY ? [i32(6, 0)] : []))),
    ];
    const footer = struct(i32(1, 1), [2, LIST, list(STRUCT, schema)], i64(3, rows.length),
      [4, LIST, list(STRUCT, [struct([1, LIST, list(STRUCT, chunks)], i64(2, at - 4), i64(3, rows.length))])],
      [5, LIST, list(STRUCT, [struct([1, BINARY, binary("PANDAS_ATTRS")], [2, BINARY, binary(JSON.stringify(attributes))])])],
      [6, BINARY, binary("loopscope report")]);
    return joined([...parts, footer, little(footer.length), utf8.encode("PAR1")]);
  };
})();
