// The search runs in a worker, which a browser refuses to a page from the disk: there a hidden frame does the work.
class FrameWorker extends EventTarget {
  constructor(address) {
    super();
    this.frame = document.createElement("iframe");
    this.frame.hidden = true;
    document.body.append(this.frame);
    const page = this.frame.contentDocument;
    page.open();
    page.write(`<body><script>
      postMessage = parent.postMessage.bind(parent);
      importScripts = (...addresses) => addresses.reduce((before, address) => before.then(() => new Promise(loaded => {
        const script = document.createElement("script");
        script.src = address;
        script.onload = loaded;
        document.body.append(script);
      })), Promise.resolve());
    <\/script><script src="${address}"><\/script></body>`);
    page.close();
    addEventListener("message", ({ source, data }) => {
      if (source === this.frame.contentWindow) this.dispatchEvent(new MessageEvent("message", { data }));
    });
  }
  postMessage(data) { this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })); }
  terminate() { this.frame.remove(); }
}
if (location.protocol === "file:") window.Worker = FrameWorker;
