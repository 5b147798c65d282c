// Server-sent events of /v1/chat/completions, and the API key that requests carry.

/** What the server asks for, for as long as this tab is open; empty: none. */
export const key = {
  get: () => sessionStorage.getItem('key') ?? '',
  set: (value) => sessionStorage.setItem('key', value),
};

export function headers(more = {}) {
  return key.get() ? { ...more, Authorization: `Bearer ${key.get()}` } : more;
}

/** The server's answer to a JSON body. Throws an Error with its message. */
async function send(path, body, signal) {
  const response = await fetch(path, {
    method: 'POST',
    headers: headers({ 'Content-Type': 'application/json' }),
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok) {
    const answer = await response.json().catch(() => null);
    throw new Error(answer?.error?.message ?? `The server answered with status ${response.status}.`);
  }
  return response;
}

/** The same as JSON. */
export async function post(path, body) {
  return (await send(path, body)).json();
}

/** The data of each event, comments left out, until [DONE]. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error('The connection broke off before the answer was complete.');
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith('data: ')) continue;
      const data = line.slice('data: '.length);
      if (data === '[DONE]') return;
      yield JSON.parse(data);
    }
  }
}

/**
 * Streams one answer. `on.progress` gets {total, cached, done} while the prompt is read, `on.text` each piece of the answer.
 * Returns {usage, mobius} of the end. Throws an Error with the server's message, or an AbortError.
 */
export async function streamChat(request, signal, on) {
  const response = await send('/v1/chat/completions', request, signal);
  const end = {};
  for await (const event of events(response.body)) {
    if (event.error) throw new Error(event.error.message);
    if (event.mobius?.progress) on.progress(event.mobius.progress);
    const piece = event.choices?.[0]?.delta?.content;
    if (piece) on.text(piece);
    if (event.usage) Object.assign(end, { usage: event.usage, mobius: event.mobius });
  }
  return end;
}
