/**
 * ONNX Runtime sends telemetry unless this variable is set before it is loaded: it keeps an id of the machine in the user's cache, writes events to
 * files and looks up a collector's host. A thread's variables are a copy that the runtime does not see, so they are set in the main thread.
 * @throws Error in a thread whose process has not set it
 */
import { isMainThread } from 'node:worker_threads';

const name = 'ORT_DISABLE_TELEMETRY';
if (isMainThread) process.env[name] = '1';
else if (process.env[name] !== '1')
  throw new Error(
    `ONNX Runtime would send telemetry, which cannot be switched off from a thread: import visedit in the main thread first, or set ${name}=1 for the process`,
  );
