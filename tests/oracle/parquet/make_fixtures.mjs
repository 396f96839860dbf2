// Writes tests/data/parquet/*.parquet with two independent writers (hyparquet-writer, DuckDB), and beside each the rows
// as JSON Lines that went in. Run once: npm install --ignore-scripts && node make_fixtures.mjs
import { writeFileSync, mkdirSync } from 'node:fs'
import { resolve } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import { parquetWriteBuffer } from 'hyparquet-writer'

const out = resolve(import.meta.dirname, '../../data/parquet')
mkdirSync(out, { recursive: true })

const texts = ['', 'plain', 'with "quotes" and \\ and \n', 'ünïcode — 日本語 🙂', null, 'plain', 'x'.repeat(300)]
const flat = Array.from({ length: 400 }, (_, i) => ({
  id: i * i - 1000,
  big: i * 4000000007 - 5,
  ratio: i % 7 === 3 ? null : i / 8 - 3.5,
  ok: i % 3 === 0,
  text: texts[i % texts.length],
  tag: i % 5 === 0 ? null : 'tag' + (i % 4),
}))
const chats = Array.from({ length: 300 }, (_, i) => ({
  messages: Array.from({ length: i % 5 }, (_, k) => ({
    role: ['system', 'user', 'assistant'][k % 3],
    content: `turn ${k} of ${i} ` + 'ab'.repeat(i % 11),
  })),
  tags: i % 4 === 0 ? null : Array.from({ length: i % 3 }, (_, k) => (k === 1 ? null : `t${k}`)),
  grid: Array.from({ length: i % 3 }, (_, r) => Array.from({ length: (i + r) % 4 }, (_, c) => i + 10 * r + c)),
  meta: i % 6 === 0 ? null : { source: 's' + (i % 2), score: i % 5 === 0 ? null : i / 4 },
}))

// what our reader gives back: null fields of nested structs are left out
const clean = (v, top) =>
  Array.isArray(v) ? v.map((x) => clean(x, false))
  : v && typeof v === 'object'
    ? Object.fromEntries(Object.entries(v).filter(([, x]) => top || x !== null).map(([k, x]) => [k, clean(x, false)]))
    : v
const expect = (name, rows) =>
  writeFileSync(`${out}/${name}.jsonl`, rows.map((r) => JSON.stringify(clean(r, true))).join('\n') + '\n')
expect('flat', flat)
expect('chats', chats)

const column = (name, type, extra = {}, convert = (x) => x) =>
  ({ name, type, nullable: true, data: flat.map((r) => (r[name] === null ? null : convert(r[name]))), ...extra })
const columns = (encoded) => [
  column('id', 'INT32', encoded ? { encoding: 'DELTA_BINARY_PACKED' } : {}),
  column('big', 'INT64', encoded ? { encoding: 'DELTA_BINARY_PACKED' } : {}, BigInt),
  column('ratio', 'DOUBLE', encoded ? { encoding: 'BYTE_STREAM_SPLIT' } : {}),
  column('ok', 'BOOLEAN', encoded ? { encoding: 'RLE' } : {}),
  column('text', 'STRING', encoded ? { encoding: 'DELTA_LENGTH_BYTE_ARRAY' } : {}),
  column('tag', 'STRING', encoded ? { encoding: 'DELTA_BYTE_ARRAY' } : {}),
]
const hy = (name, options) => writeFileSync(`${out}/${name}.parquet`, Buffer.from(parquetWriteBuffer({ statistics: false, ...options })))
hy('flat-hyparquet', { columnData: columns(false), rowGroupSize: 150, pageSize: 1000 })
hy('flat-hyparquet-encoded', { columnData: columns(true), codec: 'UNCOMPRESSED' })

const db = await (await DuckDBInstance.create(':memory:')).connect()
for (const [name, rows, types] of [
  ['flat', flat, { id: 'INTEGER', big: 'BIGINT', ratio: 'DOUBLE', ok: 'BOOLEAN', text: 'VARCHAR', tag: 'VARCHAR' }],
  ['chats', chats, {
    messages: 'STRUCT(role VARCHAR, content VARCHAR)[]', tags: 'VARCHAR[]', grid: 'INTEGER[][]',
    meta: 'STRUCT(source VARCHAR, score DOUBLE)',
  }],
]) {
  writeFileSync('/tmp/rows.jsonl', rows.map((r) => JSON.stringify(r)).join('\n'))
  const spec = Object.entries(types).map(([k, t]) => `${k}: '${t}'`).join(', ')
  await db.run(`create table ${name} as select * from read_json('/tmp/rows.jsonl', format='newline_delimited', columns={${spec}})`)
  for (const codec of name === 'flat' ? ['uncompressed', 'snappy', 'gzip', 'zstd', 'lz4_raw'] : ['snappy', 'zstd'])
    await db.run(`copy ${name} to '${out}/${name}-duckdb-${codec}.parquet' (format parquet, codec '${codec}', row_group_size 2048)`)
  await db.run(`copy ${name} to '${out}/${name}-duckdb-v2.parquet' (format parquet, parquet_version v2, codec 'zstd', dictionary_size_limit 1)`)
}
await db.run(`copy (select date '2024-02-29' as d, timestamp '2001-02-03 04:05:06.789' as t, 123.45::decimal(9,2) as m,
  -0.07::decimal(38,5) as w, uuid '123e4567-e89b-12d3-a456-426614174000' as u, '\\xFF\\x00'::blob as b,
  map {'k': 1, 'l': null} as p, 250::utinyint as s, 18446744073709551615::ubigint as x, 1.5::float as f,
  'nan'::double as n) to '${out}/types.parquet' (format parquet)`)
writeFileSync(`${out}/types.jsonl`,
  '{"d":"2024-02-29","t":"2001-02-03T04:05:06.789000","m":123.45,"w":-0.07000,' +
  '"u":"123e4567-e89b-12d3-a456-426614174000","b":"/wA=","p":{"k":1,"l":null},"s":250,"x":18446744073709551615,"f":1.5,"n":null}\n')
