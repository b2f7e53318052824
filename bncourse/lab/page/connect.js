// The way from the page to the engine.

// Starts the engine in a worker made from its source (which works from file:// too), or else on this thread.
function startEngine(source, receive, noWorker) {
  const here = () => {
    noWorker();
    const engine = new (new Function(`${source.engine}; return Engine;`)())(receive, 8);
    return (message) => setTimeout(() => engine.receive(message));
  };
  try {
    const worker = new Worker(
      URL.createObjectURL(new Blob([source.engine, source.worker], { type: "text/javascript" })),
    );
    const waiting = [];
    let send = (message) => {
      waiting.push(message);
      worker.postMessage(message);
    };
    worker.onmessage = ({ data }) => {
      waiting.length = 0;
      receive(data);
    };
    worker.onerror = () => {
      // some browsers refuse only now
      worker.terminate();
      send = here();
      waiting.forEach(send);
    };
    return (message) => send(message);
  } catch {
    return here();
  }
}
