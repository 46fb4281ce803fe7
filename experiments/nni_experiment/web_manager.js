// Loaded into NNI's web manager before its own code, by NODE_OPTIONS (see web.py).
"use strict";

const fs = require("fs");
const path = require("path");
const { repair } = require("./web_guard.js");

const GUARD = path.join(__dirname, "web_guard.js");
const parent = process.ppid;

// The manager outlives the process that started it. However that ended, stop in order.
const watch = setInterval(() => {
  if (process.ppid === parent) return;
  clearInterval(watch);
  process.kill(process.pid, "SIGTERM");
}, 500);
watch.unref();

repair({
  // A resumed experiment numbers its trials from 1 again.
  NNIManager({ prototype }) {
    const recover = prototype.addRecoveredTrialJob;
    prototype.addRecoveredTrialJob = function (jobs) {
      const count = recover.call(this, jobs);
      const numbers = jobs.map((job) => job.sequenceId).filter((n) => n !== undefined);
      this.experimentProfile.nextSequenceId = Math.max(-1, ...numbers) + 1;
      return count;
    };
    // While it stops, it goes on asking a tuner that is gone; that is no error, and not the experiment's last status.
    const { criticalError } = prototype;
    prototype.criticalError = function (error) {
      if (!["STOPPING", "STOPPED"].includes(this.status.status)) criticalError.call(this, error);
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
    // Any file that a name led to; the page asks for those of the trial's own folder.
    const { getTrialFile } = prototype;
    prototype.getTrialFile = async function (id, name) {
      if (!isId(id) || !/^\w[\w.-]*$/.test(name)) throw new Error("no such file");
      return getTrialFile.call(this, id, name);
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
  NNITensorboardManager({ prototype }) {
    // NNI has TensorBoard listen on all interfaces, and the shell read the names of folders.
    const { startTensorboardTask } = prototype;
    prototype.startTensorboardTask = async function (form) {
      if (typeof form.trials !== "string" || !form.trials.split(",").every(isId)) throw new Error("no such trial");
      return startTensorboardTask.call(this, form);
    };
    prototype.getTensorboardStartCommand = async function (ids, folders, port) {
      const trials = await Promise.all(ids.map((id) => this.nniManager.getTrialJob(id)));
      const spec = trials.map((trial, i) => `${trial.sequenceId}-${ids[i]}:${fs.realpathSync(folders[i])}`);
      const command = [global.nni.args.pythonInterpreter, "-m", "tensorboard.main", "--host=127.0.0.1"];
      return [...command, `--port=${port}`, `--logdir_spec=${spec.join(",")}`].map(quoted);
    };
  },
  Ssh({ prototype }) {
    // The trial keeper on another machine listens on all interfaces there, and answers everybody.
    const { run } = prototype;
    prototype.run = async function (command) {
      const launch = / -m nni\.tools\.nni_manager_scripts\.launch_trial_keeper (.+)$/.exec(command);
      if (launch === null) {
        const said = await run.call(this, command);
        // Its configuration holds the key of its channel.
        if (command.includes("create_trial_keeper_dir ")) await run.call(this, `chmod 700 ${quoted(said)}`);
        return said;
      }
      const script = `${launch[1]}/web_guard.js`;
      await this.writeFile(script, fs.readFileSync(GUARD));
      return run.call(this, `NODE_OPTIONS=${quoted(`--require "${script}"`)} ${command}`);
    };
  },
});

function isId(text) {
  return /^\w+$/.test(text);
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
