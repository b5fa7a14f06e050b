// Expressions over statistics and settings, to the bit as curation/expressions.py evaluates them.

function valueOf(expression, columns, settings, rows) {
  if (typeof expression === "number") return expression;
  const [kind, ...parts] = expression;
  const of = (part) => valueOf(part, columns, settings, rows);
  switch (kind) {
    case "statistic": return columns.get(parts[0]) ?? NaN;
    case "setting": return settings[parts[0]] === null ? NaN : Number(settings[parts[0]]);
    case "choice": return of(parts[1][settings[parts[0]]]);
    case "abs": return pairwise(Math.abs, of(parts[0]), 0, rows);
    case "where": {
      const [low, high, then, otherwise] = parts.map(of);
      const at = (x, i) => (typeof x === "number" ? x : x[i]);
      const chosen = (i) => {
        const a = at(low, i), b = at(high, i);
        return a !== a || b !== b ? NaN : a < b ? at(then, i) : at(otherwise, i);
      };
      if ([low, high, then, otherwise].every((x) => typeof x === "number")) return chosen(0);
      const result = new Float64Array(rows);
      for (let i = 0; i < rows; i++) result[i] = chosen(i);
      return result;
    }
  }
  if (!Object.hasOwn(OPERATIONS, kind)) throw new Error(`this page knows no operation ${kind}`);
  return pairwise(OPERATIONS[kind], of(parts[0]), of(parts[1]), rows);
}

const OPERATIONS = {
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "/": (a, b) => a / b,
  minimum: (a, b) => Math.min(a, b),
  maximum: (a, b) => Math.max(a, b),
};

function pairwise(operation, a, b, rows) {
  const alone = typeof a === "number";
  if (alone && typeof b === "number") return operation(a, b);
  const result = new Float64Array(rows);
  if (alone) for (let i = 0; i < rows; i++) result[i] = operation(a, b[i]);
  else if (typeof b === "number") for (let i = 0; i < rows; i++) result[i] = operation(a[i], b);
  else for (let i = 0; i < rows; i++) result[i] = operation(a[i], b[i]);
  return result;
}

function settingsIn(expression, found = new Set()) {
  if (!Array.isArray(expression)) return found;
  const [kind, ...parts] = expression;
  if (kind === "setting" || kind === "choice") found.add(parts[0]);
  if (kind === "choice") for (const option of Object.values(parts[1])) settingsIn(option, found);
  else for (const part of parts) settingsIn(part, found);
  return found;
}
