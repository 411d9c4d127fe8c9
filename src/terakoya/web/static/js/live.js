// Follows a task's events over a WebSocket: replays what there is, goes on, and after a lost connection continues
// after the last event seen, waiting longer each time.

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
const ENDED = 1000;
const REFUSED = 4000;

/**
 * Call onEvent for each event, onConnection(isConnected) when that changes, onEnd(error or null) once at the end.
 * Returns a function that stops following.
 */
export function follow(path, { onEvent, onConnection = () => {}, onEnd = () => {} }) {
  let after = 0;
  let wait = FIRST_WAIT_MS;
  let socket = null;
  let timer = null;
  let stopped = false;
  let refusal = null;

  function connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    socket = new WebSocket(`${scheme}://${location.host}${path}?after=${after}`);
    socket.addEventListener("open", () => onConnection(true));
    socket.addEventListener("message", (message) => {
      const event = JSON.parse(message.data);
      if (event.seq === undefined) {
        refusal = event.error;
        return;
      }
      wait = FIRST_WAIT_MS;
      if (event.seq <= after) return;
      after = event.seq;
      onEvent(event);
    });
    socket.addEventListener("close", (event) => {
      if (stopped) return;
      if (event.code === ENDED || event.code >= REFUSED) {
        stopped = true;
        onEnd(event.code === ENDED ? null : refusal ?? event.reason);
        return;
      }
      onConnection(false);
      timer = setTimeout(connect, wait * (0.75 + Math.random() / 2));
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    });
  }

  function retryNow() {
    if (timer === null || stopped || socket.readyState !== WebSocket.CLOSED) return;
    clearTimeout(timer);
    connect();
  }

  addEventListener("online", retryNow);
  document.addEventListener("visibilitychange", () => document.hidden || retryNow());
  connect();
  return () => {
    stopped = true;
    clearTimeout(timer);
    socket.close();
  };
}
