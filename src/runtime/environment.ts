/**
 * Variables that libraries read when they are loaded. A thread's variables are a copy that they do not see, so they are set in the main thread.
 *
 * - ONNX Runtime sends telemetry unless it is told not to: it keeps an id of the machine in the user's cache, writes events to files and looks up a
 *   collector's host.
 * - CUDA's products of float32 would round their factors to 10 bits (TF32): logits of a small model differ from the processor's by 5e-3 with it, by
 *   3e-6 without. Who sets the variable has the last word.
 * @throws Error in a thread whose process has not switched telemetry off
 */
import { isMainThread } from 'node:worker_threads';

const telemetry = 'ORT_DISABLE_TELEMETRY';
if (isMainThread) {
  process.env[telemetry] = '1';
  process.env.NVIDIA_TF32_OVERRIDE ??= '0';
} else if (process.env[telemetry] !== '1')
  throw new Error(
    `ONNX Runtime would send telemetry, which cannot be switched off from a thread: import visedit in the main thread first, or set ${telemetry}=1 for the process`,
  );
