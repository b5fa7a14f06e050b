// What curation/audit_page/packing.py wrote.

async function inflate(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Columns of float64 whose bytes were grouped by significance.
async function unpackColumns(base64, rows) {
  const bytes = await inflate(base64);
  const columns = [];
  for (let start = 0; start < bytes.length; start += 8 * rows) {
    const column = new Uint8Array(8 * rows);
    for (let k = 0; k < 8; k++) {
      const from = start + k * rows;
      for (let i = 0; i < rows; i++) column[8 * i + k] = bytes[from + i];
    }
    columns.push(new Float64Array(column.buffer));
  }
  return columns;
}

async function unpackJson(base64) {
  return JSON.parse(new TextDecoder().decode(await inflate(base64)));
}
