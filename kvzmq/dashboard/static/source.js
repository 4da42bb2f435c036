// The event stream, opened again whenever it ends. Used by the worker, or by a page where there are no shared workers.

const AGAIN_MS = 2000;

/** Follow /events; `take(kind, data)` gets hello, tick, and link: "live" or "lost". Returns what ends it. */
export function openSource(take) {
  let source = null;
  let timer = 0;

  function open() {
    source = new EventSource("/events");
    for (const kind of ["hello", "tick"]) {
      source.addEventListener(kind, (event) => {
        if (kind === "hello") take("link", "live");
        take(kind, JSON.parse(event.data));
      });
    }
    source.addEventListener("error", () => {
      take("link", "lost");
      if (source.readyState === EventSource.CLOSED) {  // an answer that is no stream: it would not try again
        clearTimeout(timer);
        timer = setTimeout(open, AGAIN_MS);
      }
    });
  }

  open();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}
