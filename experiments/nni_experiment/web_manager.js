// Loaded into NNI's web manager before its own code, by NODE_OPTIONS (see web.py).
"use strict";

const Module = require("module");
const net = require("net");

const host = process.env.NAS_WEB_HOST;
const parent = process.ppid;
delete process.env.NODE_OPTIONS; // trials inherit the manager's environment
delete process.env.NAS_WEB_HOST;

// NNI listens on all interfaces, without a login, and whoever reaches it can run code.
const LOOPBACK = "127.0.0.1";
const everywhere = host === "0.0.0.0" || host === "::";
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  if (typeof port !== "number" || typeof rest[0] === "string") return listen.call(this, port, ...rest);
  if (everywhere) return listen.call(this, port, host, ...rest);
  if (host && host !== LOOPBACK && port !== 0) {
    // NNI's Python side knows the manager as localhost, so that stays.
    const other = net.createServer((socket) => this.emit("connection", socket));
    other.on("error", (error) => this.emit("error", error));
    listen.call(other, port, host);
    this.once("close", () => other.close());
  }
  return listen.call(this, port, LOOPBACK, ...rest);
};

// The manager outlives the process that started it. However that ended, stop in order.
const watch = setInterval(() => {
  if (process.ppid === parent) return;
  clearInterval(watch);
  process.kill(process.pid, "SIGTERM");
}, 500);
watch.unref();

const repairs = {
  // A resumed experiment numbers its trials from 1 again.
  NNIManager({ prototype }) {
    const recover = prototype.addRecoveredTrialJob;
    prototype.addRecoveredTrialJob = function (jobs) {
      const count = recover.call(this, jobs);
      const numbers = jobs.map((job) => job.sequenceId).filter((n) => n !== undefined);
      this.experimentProfile.nextSequenceId = Math.max(-1, ...numbers) + 1;
      return count;
    };
    // Once the tuner is ready, NNI asks it for all trials that may run, and for what a change before that added besides.
    const ready = new WeakSet();
    const { onTunerCommand, updateTrialConcurrency } = prototype;
    prototype.onTunerCommand = function (command, ...rest) {
      if (command === "ID") ready.add(this);
      return onTunerCommand.call(this, command, ...rest);
    };
    prototype.updateTrialConcurrency = function (concurrency) {
      updateTrialConcurrency.call(this, concurrency);
      if (!ready.has(this)) this.trialConcurrencyChange = 0;
    };
  },
  V3asV1({ prototype }) {
    // A trial that a signal ended, such as the one of a full memory, has failed; NNI says that the user cancelled it.
    const cancelled = new Set();
    const { cancelTrialJob, getTrialJob } = prototype;
    prototype.cancelTrialJob = function (id, ...rest) {
      cancelled.add(id);
      return cancelTrialJob.call(this, id, ...rest);
    };
    prototype.getTrialJob = async function (id) {
      const trial = await getTrialJob.call(this, id);
      if (trial.status === "USER_CANCELED" && !cancelled.has(id)) trial.status = "FAILED";
      return trial;
    };
    // Of trials that start together, each gets the parameters of whichever was submitted first.
    const submit = prototype.submitTrialJob;
    prototype.submitTrialJob = async function (form) {
      const trial = await submit.call(this, form);
      const parameters = form.hyperParameters.value;
      const waiting = this.parameters.indexOf(parameters);
      if (waiting >= 0) {
        this.parameters.splice(waiting, 1);
        this.allocatedParameters.set(trial.id, parameters);
      }
      return trial;
    };
  },
};
const load = Module._load;
Module._load = function (...args) {
  const exports = load.apply(this, args);
  for (const name of Object.keys(repairs)) {
    if (exports && exports[name]) {
      repairs[name](exports[name]);
      delete repairs[name];
    }
  }
  return exports;
};
