// The chat page: one conversation, streamed answers, documents dropped onto it. No build step, no dependency.
import { routingView } from '/web/routing.js';
import { headers, key, post, streamChat } from '/web/stream.js';

const element = (id) => document.getElementById(id);
const conversation = element('conversation');
const prompt = element('prompt');

const messages = [];   // as the API has them
let attached = [];     // {name, text}, sent with the next message
let running = null;    // AbortController of the answer that streams

function show(role, text) {
  const box = document.createElement('article');
  box.className = `message ${role}`;
  box.setAttribute('aria-label', role === 'user' ? 'You' : 'Answer');
  const body = document.createElement('div');
  body.className = 'text';
  body.textContent = text;
  box.append(body);
  conversation.append(box);
  conversation.scrollTop = conversation.scrollHeight;
  return box;
}

/** Appends pieces of text once a frame: a fast model would keep the page too busy to be stopped. */
function writer(body) {
  const text = document.createTextNode('');
  body.append(text);
  let waiting = '';
  return (piece) => {
    if (!waiting) {
      requestAnimationFrame(() => {
        showProgress(null);
        text.appendData(waiting);
        waiting = '';
        conversation.scrollTop = conversation.scrollHeight;
      });
    }
    waiting += piece;
  };
}

function note(box, text, className = 'quiet facts') {
  const line = document.createElement('div');
  line.className = className;
  line.textContent = text;
  box.append(line);
  conversation.scrollTop = conversation.scrollHeight;
}

function showAttached() {
  element('documents').replaceChildren(...attached.map((file) => {
    const tag = document.createElement('span');
    tag.textContent = `${file.name}, ${file.text.length.toLocaleString()} characters `;
    const remove = document.createElement('button');
    remove.type = 'button';
    remove.textContent = '×';
    remove.setAttribute('aria-label', `Remove ${file.name}`);
    remove.addEventListener('click', () => {
      attached = attached.filter((other) => other !== file);
      showAttached();
    });
    tag.append(remove);
    return tag;
  }));
}

async function attach(files) {
  for (const file of files) {
    const text = await file.text();
    // A replacement character comes from bytes that are no UTF-8: no text.
    if (text.includes('\u0000') || text.includes('\ufffd')) {
      note(show('assistant', ''), `${file.name} is not a UTF-8 text file.`, 'failure');
    } else {
      attached.push({ name: file.name, text });
    }
  }
  showAttached();
}

function policy(phase) {
  const mode = element(`${phase}_mode`).value;
  if (mode !== 'moba') return mode ? { mode } : undefined;
  return { mode, block: element(`${phase}_block`).valueAsNumber, top_k: element(`${phase}_top_k`).valueAsNumber };
}

function request() {
  const system = element('system').value.trim();
  const mobius = { progress: true };
  if (element('routing').checked) mobius.routing = true;
  for (const phase of ['prefill', 'decode']) {
    const chosen = policy(phase);
    if (chosen) mobius[phase] = chosen;
  }
  if (element('full_layers').value) mobius.full_attention_last_layers = element('full_layers').valueAsNumber;
  return {
    messages: system ? [{ role: 'system', content: system }, ...messages] : [...messages],
    max_tokens: element('max_tokens').valueAsNumber,
    temperature: element('temperature').valueAsNumber,
    stream: true,
    stream_options: { include_usage: true },
    mobius,
  };
}

function showProgress(progress) {
  element('progress').hidden = !progress;
  if (!progress) return;
  element('bar').value = progress.done / Math.max(progress.total, 1);
  element('progress_text').value = `${progress.done.toLocaleString()} of ${progress.total.toLocaleString()} tokens read`
      + (progress.seconds_left != null ? `, about ${Math.ceil(progress.seconds_left)} s left` : '');
}

function summary(usage, numbers) {
  const share = (reads) => reads && reads.total ? `${(100 * reads.read / reads.total).toFixed(1)} %` : 'none';
  const decodeSeconds = (numbers.total_ms - numbers.ttft_ms) / 1000;
  const rate = usage.completion_tokens > 1 && decodeSeconds > 0
      ? `, ${((usage.completion_tokens - 1) / decodeSeconds).toFixed(1)} tokens/s` : '';
  return `${usage.prompt_tokens.toLocaleString()} prompt tokens, first token after ${(numbers.ttft_ms / 1000).toFixed(2)} s${rate}; `
      + `KV blocks read: ${share(numbers.prefill_blocks)} of the prompt's, ${share(numbers.decode_blocks)} of the answer's`;
}

/** Gives the text of tokens of a prompt; asks the server for its tokens when the first text is wanted. */
function promptReader(sent) {
  let ids = null;
  return async (first, count) => {
    ids ??= post('/v1/chat/completions/render', { messages: sent }).then((prompt) => prompt.token_ids);
    const tokens = (await ids).slice(first, first + count);
    return (await post('/detokenize', { tokens })).prompt;
  };
}

function showRouting(box, routing, sent) {
  if (!routing) return;
  if (!routing.tokens) note(box, 'Full attention reads every block: there is no choice to show.');
  else if (routing.blocks > 1) box.append(routingView(routing, promptReader(sent)));
}

function busy(on) {
  element('send').disabled = on;
  element('stop').disabled = !on;
}

async function ask() {
  const text = prompt.value.trim();
  if (running || (!text && attached.length === 0)) return;
  const documents = attached.map((file) => file.text);
  show('user', [...attached.map((file) => `[${file.name}]`), text].join('\n'));
  messages.push({ role: 'user', content: [...documents, text].join('\n\n') });
  prompt.value = '';
  attached = [];
  showAttached();

  const box = show('assistant', '');
  const write = writer(box.firstChild);
  let answer = '';
  running = new AbortController();
  busy(true);
  const sent = request();
  try {
    const end = await streamChat(sent, running.signal, {
      progress: showProgress,
      text: (piece) => {
        answer += piece;
        write(piece);
      },
    });
    if (end.usage && end.mobius) {
      note(box, summary(end.usage, end.mobius));
      showRouting(box, end.mobius.routing, sent.messages);
    }
  } catch (error) {
    note(box, error.name === 'AbortError' ? 'Stopped.' : error.message, error.name === 'AbortError' ? 'quiet facts' : 'failure');
  }
  // What was said stays in the conversation; a question without any answer does not.
  if (answer) messages.push({ role: 'assistant', content: answer });
  else messages.pop();
  showProgress(null);
  running = null;
  busy(false);
  prompt.focus();
}

element('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  ask();
});
prompt.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    ask();
  }
});
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && running) running.abort();
});
element('stop').addEventListener('click', () => running?.abort());
element('clear').addEventListener('click', () => {
  running?.abort();
  messages.length = 0;
  conversation.replaceChildren();
  prompt.focus();
});
element('file').addEventListener('change', async (event) => {
  await attach(event.target.files);
  event.target.value = '';
});

document.addEventListener('dragover', (event) => {
  event.preventDefault();
  element('drop').hidden = false;
});
document.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) element('drop').hidden = true;
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  element('drop').hidden = true;
  attach(event.dataTransfer.files);
});

/** Shows the model, or asks for a key where the server wants one. */
async function showModel() {
  const response = await fetch('/v1/models', { headers: headers() }).catch(() => null);
  const refused = response?.status === 401;
  if (refused || key.get()) element('access').hidden = false;
  element('access_text').value = !refused ? '' : key.get() ? 'The server does not know this key.' : 'The server asks for a key.';
  const model = response?.ok ? (await response.json()).data[0] : null;
  element('model').textContent = model
      ? `${model.id}, up to ${model.mobius.max_context.toLocaleString()} tokens, ${model.mobius.device}` : '';
  const routes = model?.mobius.routing ?? false;
  element('routing').disabled = !routes;
  element('routing').checked = routes;
  (refused ? element('key') : prompt).focus();
}

element('key').value = key.get();
element('key').addEventListener('change', (event) => {
  key.set(event.target.value.trim());
  showModel();
});
await showModel();
