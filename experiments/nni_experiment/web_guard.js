// Who may talk to NNI's web manager: loaded before its own code, and on other machines before that of its trial keeper.
// NNI listens on all interfaces, asks nobody who they are, and whoever reaches it can run code. Here it listens where it
// is told to, and answers those only who ask it by its own address, from no other page, and know the token of the run.
"use strict";

const crypto = require("crypto");
const http = require("http");
const Module = require("module");
const net = require("net");
const os = require("os");

const LOOPBACK = "127.0.0.1";
const USER = "nas";
const host = process.env.NAS_WEB_HOST || LOOPBACK;
const token = process.env.NAS_WEB_TOKEN || crypto.randomBytes(32).toString("base64url");
for (const name of ["NODE_OPTIONS", "NAS_WEB_HOST", "NAS_WEB_TOKEN"]) delete process.env[name]; // trials inherit them

const everywhere = host === "0.0.0.0" || host === "::";
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  if (typeof port !== "number" || typeof rest[0] === "string") return listen.call(this, port, ...rest);
  if (everywhere) return listen.call(this, port, host, ...rest);
  if (host !== LOOPBACK && port !== 0) {
    // NNI's Python side knows the manager as localhost, so that stays.
    const other = net.createServer((socket) => this.emit("connection", socket));
    other.on("error", (error) => this.emit("error", error));
    listen.call(other, port, host);
    this.once("close", () => other.close());
  }
  return listen.call(this, port, LOOPBACK, ...rest);
};

// Addresses that other machines were told to reach this one at.
const told = new Set();

/** Whether a Host header is an address and port that is listened on; a name that leads here by somebody's DNS is none. */
function isOwn(header, port) {
  const interfaces = everywhere ? Object.values(os.networkInterfaces()).flat().map((i) => i.address) : [host];
  return ["localhost", LOOPBACK, ...interfaces, ...told].some((address) => {
    const name = net.isIPv6(address) ? `[${address}]` : address;
    return header === `${name}:${port}` || (port === 80 && header === name);
  });
}

function isSame(given, right) {
  const [a, b] = [given, right].map((text) => crypto.createHash("sha256").update(String(text)).digest());
  return crypto.timingSafeEqual(a, b);
}

/** What opens one path only. A trial gets that of its own channel, and so does another machine. */
function keyOf(path) {
  return crypto.createHmac("sha256", token).update(path).digest("base64url");
}

/** Decoded, or null where it leads out of what is served. */
function pathOf(url) {
  if (!/^\/(?!\/)/.test(url)) return null;
  let path;
  try {
    path = decodeURIComponent(url.split("?")[0]);
  } catch {
    return null;
  }
  return /[\0\\]/.test(path) || path.split("/").includes("..") ? null : path;
}

/** Whether a request shows the token: in its address, as a password, or by the cookie of a page that was opened so. */
function isAdmitted(request, path, isUpgrade) {
  const { authorization, cookie, "sec-fetch-site": from } = request.headers;
  const basic = /^Basic (\S+)$/i.exec(authorization || "");
  if (basic) {
    const [user, ...password] = Buffer.from(basic[1], "base64").toString().split(":");
    const given = password.join(":");
    return user === USER && (isSame(given, token) || isSame(given, keyOf(path)));
  }
  const url = new URL(request.url, "http://none");
  const inAddress = url.searchParams.get("token");
  if (inAddress !== null) {
    url.searchParams.delete("token");
    request.url = url.pathname + url.search; // not into logs
    request.isFirst = isSame(inAddress, token);
    return request.isFirst;
  }
  // A browser sends cookies also with what other pages of this machine ask for. No page of the UI opens a websocket.
  if (isUpgrade || (from !== undefined && from !== "same-origin" && from !== "none")) return false;
  const cookies = (cookie || "").split(/; */).map((pair) => pair.split("="));
  return cookies.some(([name, value]) => name === cookieName(request) && isSame(value, token));
}

function cookieName(request) {
  return `nas_token_${request.socket.localPort}`; // browsers do not tell ports apart
}

/** Why a request is not answered; undefined where it is. */
function refusal(request, isUpgrade) {
  const { host: header, origin } = request.headers;
  if (!isOwn(header, request.socket.localPort)) return "the Host of the request is no address that is listened on here";
  if (origin !== undefined && origin !== `http://${header}`) return "the request comes from a page of another origin";
  const path = pathOf(request.url);
  if (path === null) return "the path leads out of what is served";
  if (!isAdmitted(request, path, isUpgrade)) return "open the address with ?token=… that the command printed";
}

const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, request, answer, ...rest) {
  if (!["request", "upgrade", "connect", "checkContinue"].includes(event)) {
    return emit.call(this, event, request, answer, ...rest);
  }
  const isRequest = event === "request" || event === "checkContinue";
  const why = refusal(request, !isRequest);
  if (!isRequest) {
    if (why === undefined) return emit.call(this, event, request, answer, ...rest);
    answer.end("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    return true;
  }
  answer.setHeader("X-Content-Type-Options", "nosniff");
  answer.setHeader("Referrer-Policy", "same-origin");
  answer.setHeader("Content-Security-Policy", "frame-ancestors 'none'");
  answer.setHeader("Cross-Origin-Resource-Policy", "same-origin");
  if (why !== undefined) {
    answer.writeHead(403, { "Content-Type": "text/plain", Connection: "close" }).end(`refused: ${why}\n`);
    return true;
  }
  if (request.isFirst) {
    answer.setHeader("Set-Cookie", `${cookieName(request)}=${token}; HttpOnly; SameSite=Strict; Path=/`);
  }
  return emit.call(this, event, request, answer, ...rest);
};

const repairs = {
  // Addresses of channels, for trials and other machines: with the key of that channel.
  RestManager({ prototype }) {
    const { getFullUrl } = prototype;
    prototype.getFullUrl = function (protocol, ip, ...parts) {
      told.add(ip);
      const url = new URL(getFullUrl.call(this, protocol, ip, ...parts));
      url.username = USER;
      url.password = keyOf(url.pathname);
      return url.href;
    };
  },
};
const load = Module._load;
Module._load = function (request, ...rest) {
  if (request === "http-proxy") {
    // /netron forwarded whatever came to a site on the internet.
    return { createProxyServer: () => ({ web: (_request, answer) => answer.status(404).send("Not Found") }) };
  }
  const exports = load.call(this, request, ...rest);
  for (const name of Object.keys(repairs)) {
    if (exports && exports[name]) {
      repairs[name](exports[name]);
      delete repairs[name];
    }
  }
  return exports;
};

/** Change classes of NNI, by name, as they are loaded. */
exports.repair = (more) => Object.assign(repairs, more);
