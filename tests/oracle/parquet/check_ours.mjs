// Reads a Parquet file that `pmetal dataset convert` wrote with hyparquet and DuckDB and compares with the JSON Lines
// it was made from: node check_ours.mjs rows.jsonl ours.parquet
import { readFileSync } from 'node:fs'
import { DuckDBInstance } from '@duckdb/node-api'
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'

const [rows, file] = process.argv.slice(2)
const norm = (v) =>
  typeof v === 'bigint' ? Number(v)
  : Array.isArray(v) ? v.map(norm)
  : v && typeof v === 'object'
    ? Object.fromEntries(Object.entries(v).filter(([, x]) => x != null).map(([k, x]) => [k, norm(x)]))
    : v
const want = readFileSync(rows, 'utf8').trim().split('\n').map((l) => JSON.stringify(norm(JSON.parse(l))))
const hyparquet = (await parquetReadObjects({ file: await asyncBufferFromFile(file), compressors })).map(norm)
const db = await (await DuckDBInstance.create(':memory:')).connect()
const found = await db.runAndReadAll(`select to_json(t) as j from '${file}' t`)
const duckdb = found.getRowObjects().map((o) => norm(JSON.parse(o.j)))
let failed = false
for (const [name, got] of Object.entries({ hyparquet, duckdb })) {
  const at = want.findIndex((w, i) => JSON.stringify(got[i]) !== w)
  const ok = got.length === want.length && at < 0
  console.log(name, got.length, 'rows:', ok ? 'equal' : `differ at row ${at}`)
  failed ||= !ok
}
process.exit(failed ? 1 : 0)
