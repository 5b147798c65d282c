// The routing view: which blocks of the context the model selected for an answer, and what stands in them.

const ROW = 14;  // pixels of a layer, where there are few enough
const TALLEST = 420;

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

const number = (value) => value.toLocaleString();
const percent = (value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;

/** Counts of one layer by column: of one head, or of all together. */
function row(heads, head, columns) {
  if (head !== null) return heads[head];
  const sum = new Array(columns).fill(0);
  for (const counts of heads) counts.forEach((count, column) => { sum[column] += count; });
  return sum;
}

/**
 * A view of `routing`, as `mobius.routing` of an answer has it. `read(first, count)` gives the text of those tokens of the
 * prompt, as a promise: for blocks that the answer does not list.
 */
export function routingView(routing, read) {
  const { counts, top, block, blocks, tokens } = routing;
  const wide = routing.column_blocks;
  const columns = Math.ceil(blocks / wide);
  const ownColumn = Math.floor(routing.first_own_block / wide);
  const sparse = counts.filter((heads) => heads !== null);
  const numHeads = sparse[0]?.length ?? 0;
  const cursor = { layer: 0, column: Math.floor((top[0]?.block ?? 0) / wide) };
  let head = null;  // null: all
  let rows = [];    // per layer, null under full attention
  let most = 1;

  const view = make('details', 'routing');
  view.open = true;
  view.setAttribute('aria-live', 'off');
  view.append(make('summary', '', 'Where the model looked'));

  const select = make('select', 'head');
  select.append(new Option(`all ${numHeads}, summed`, ''));
  for (let i = 0; i < numHeads; i += 1) select.append(new Option(`head ${i + 1}`, String(i)));
  const label = make('label', 'quiet', 'Heads ');
  label.append(select);

  const canvas = make('canvas');
  canvas.tabIndex = 0;
  canvas.setAttribute('role', 'application');
  canvas.setAttribute('aria-label', `Selected blocks: ${counts.length} layers, ${columns} columns. Arrow keys move.`);
  const where = make('output', 'where');
  where.setAttribute('aria-live', 'polite');
  const text = make('div', 'block-text');
  const map = make('div', 'map');
  const legend = `A row is a layer, a column ${wide > 1 ? `${number(wide)} blocks` : 'a block'} of ${number(block)} tokens. `
      + 'Blocks behind the line are read by what lies in them without being chosen.';
  map.append(label, canvas, where, text, make('div', 'quiet', legend));

  const list = make('ol', 'top');
  const choices = tokens * sparse.length * numHeads;
  top.slice(0, 12).forEach((entry) => {
    const item = make('li');
    const button = make('button', '', `Tokens ${number(entry.first_token)} to ${number(entry.first_token + entry.tokens - 1)}`);
    button.type = 'button';
    const own = entry.own ? ', the answer itself apart' : '';
    item.append(button, make('span', 'quiet', ` chosen in ${percent((entry.count - entry.own) / choices)} of cases${own}`),
        make('div', 'excerpt', entry.text));
    const show = () => moveTo(cursor.layer, Math.floor(entry.block / wide), entry);
    button.addEventListener('focus', show);
    item.addEventListener('mouseenter', show);
    list.append(item);
  });
  const body = make('div', 'routing-body');
  body.append(map, list);
  view.append(body);

  function recount() {
    rows = counts.map((heads) => heads && row(heads, head, columns));
    // What must be read would outshine what was chosen.
    most = Math.max(1, ...rows.filter(Boolean).flatMap((values) => values.slice(0, Math.max(ownColumn, 1))));
  }

  function draw() {
    const width = canvas.clientWidth;
    const height = Math.min(ROW * counts.length, TALLEST);
    if (width === 0) return;
    canvas.style.height = `${height}px`;
    canvas.width = width * devicePixelRatio;
    canvas.height = height * devicePixelRatio;
    const pen = canvas.getContext('2d');
    pen.scale(devicePixelRatio, devicePixelRatio);
    const style = getComputedStyle(canvas);
    const step = width / columns;
    const tall = height / counts.length;
    rows.forEach((values, layer) => {
      pen.fillStyle = values ? style.color : style.borderTopColor;
      for (let column = 0; column < columns; column += 1) {
        pen.globalAlpha = values ? Math.sqrt(Math.min(values[column] / most, 1)) : 0.6;
        if (pen.globalAlpha > 0) pen.fillRect(column * step, layer * tall, Math.max(step - (step > 4 ? 1 : 0), 1), tall - 1);
      }
    });
    pen.globalAlpha = 1;
    pen.fillStyle = style.borderTopColor;
    pen.fillRect(Math.max(ownColumn * step - 1, 0), 0, 2, height);
    pen.strokeStyle = style.caretColor;
    pen.lineWidth = 2;
    pen.strokeRect(cursor.column * step, cursor.layer * tall, Math.max(step, 3), tall);
  }

  function describe() {
    const { layer, column } = cursor;
    const first = column * wide * block;
    const end = Math.min((column + 1) * wide, blocks) * block;
    const values = rows[layer];
    const share = values && values[column] / (tokens * (head === null ? numHeads : 1));
    where.value = `Layer ${layer + 1}, tokens ${number(first)} to ${number(end - 1)}: `
        + (values ? `read ${share.toFixed(2)} times for a token of the answer` : 'full attention, everything is read')
        + (column >= ownColumn ? ', also by itself' : '');
  }

  async function moveTo(layer, column, entry) {
    cursor.layer = Math.min(Math.max(layer, 0), counts.length - 1);
    cursor.column = Math.min(Math.max(column, 0), columns - 1);
    draw();
    describe();
    const at = cursor.column;
    const known = entry ?? top.find((other) => Math.floor(other.block / wide) === at);
    if (known) {
      text.textContent = known.text;
      return;
    }
    text.textContent = '…';
    const found = await read(at * wide * block, block).catch((error) => `(${error.message})`);
    if (cursor.column === at) text.textContent = found;
  }

  canvas.addEventListener('keydown', (event) => {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
      Home: [0, -columns], End: [0, columns] }[event.key];
    if (!steps) return;
    event.preventDefault();
    moveTo(cursor.layer + steps[0], cursor.column + steps[1]);
  });
  canvas.addEventListener('focus', () => moveTo(cursor.layer, cursor.column));
  canvas.addEventListener('mousemove', (event) => {
    const layer = Math.floor(event.offsetY / canvas.clientHeight * counts.length);
    const column = Math.floor(event.offsetX / canvas.clientWidth * columns);
    if (layer !== cursor.layer || column !== cursor.column) moveTo(layer, column);
  });
  select.addEventListener('change', () => {
    head = select.value === '' ? null : Number(select.value);
    recount();
    draw();
    describe();
  });
  new ResizeObserver(draw).observe(canvas.parentElement);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  recount();
  describe();
  text.textContent = top[0]?.text ?? '';
  return view;
}
