// What curation/audit_page/packing.py wrote.

async function inflate(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Columns of float64 whose bytes were grouped by significance.
async function unpackColumns(base64, count, rows) {
  const bytes = await inflate(base64);
  return Array.from({ length: count }, (_, number) => {
    const column = new Uint8Array(8 * rows);
    for (let k = 0; k < 8; k++) {
      const from = (8 * number + k) * rows;
      for (let i = 0; i < rows; i++) column[8 * i + k] = bytes[from + i];
    }
    return new Float64Array(column.buffer);
  });
}

async function unpackJson(base64) {
  return JSON.parse(new TextDecoder().decode(await inflate(base64)));
}
