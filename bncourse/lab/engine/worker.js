const engine = new Engine((report) => postMessage(report), 40);
onmessage = ({ data }) => engine.receive(data);
