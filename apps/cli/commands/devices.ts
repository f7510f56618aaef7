/** `visedit devices`: where models can run on this machine, and what is missing where they cannot. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { parseJson } from '../../../src/files/json.ts';
import { gigabytes } from '../../../src/models/memory.ts';
import type { DeviceReport } from '../../../src/runtime/try-device.ts';
import { type CommandResult, defineCommand } from '../frame/command.ts';
import type { CommandContext } from '../frame/context.ts';
import { UsageError } from '../frame/errors.ts';
import { choice } from '../frame/values.ts';
import { stoppable } from '../stoppable.ts';

const names = ['cpu', 'cuda', 'webgpu'] as const;

export const command = defineCommand({
  details:
    'Tries each device with a small product, and says what is missing where it fails; with --device it tries only that one. `devices install cuda` fetches the CUDA build of ONNX Runtime from the package registry (PIP_INDEX_URL names a mirror), and CUDA and cuDNN where the system and PyTorch do not have them. It checks their hashes and unpacks them in ~/.cache/visedit, or in the folder that VISEDIT_CUDA names.',
  arguments: {
    action: choice('action (default: list the devices)', ['install']),
    what: choice('what to install', ['cuda']),
  },
  examples: ['devices', 'devices install cuda'],
  async run({ action, what }, context): Promise<CommandResult> {
    if (action === 'install') {
      if (what === undefined) throw new UsageError('install what? Add: cuda');
      return install(context);
    }
    const { chosenDevice } = await import('../../../src/runtime/node.ts');
    const only = chosenDevice();
    const reports = only === 'auto' ? await Promise.all(names.map(inProcess)) : [await tryHere(only)];
    return { data: { devices: reports }, text: reports.map(line).join('\n') };
  },
});

async function tryHere(device: (typeof names)[number]): Promise<DeviceReport> {
  const { tryDevice } = await import('../../../src/runtime/try-device.ts');
  return tryDevice(device);
}

/** One process holds one build of the engine, and a driver may end its process. */
async function inProcess(device: (typeof names)[number]): Promise<DeviceReport> {
  const args = [...process.execArgv, process.argv[1]!, 'devices', '--device', device, '--json'];
  try {
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 120_000 });
    return (parseJson(stdout, 'its answer') as unknown as { devices: [DeviceReport] }).devices[0];
  } catch (error) {
    const { signal, message } = error as { signal?: string; message: string };
    const why = typeof signal === 'string' ? `the process that tried it ended with ${signal}` : message.split('\n').at(-1)!;
    return { device, works: false, fault: `${why}; update the driver of the card` };
  }
}

function line({ device, works, card, fault }: DeviceReport): string {
  const name = card === undefined ? '' : `: ${card.name}, ${gigabytes(card.memory)}`;
  return works ? `${device.padEnd(7)} works${name}` : `${device.padEnd(7)} does not work${name}: ${fault}`;
}

async function install(context: CommandContext): Promise<CommandResult> {
  const { installCuda } = await import('../../../src/runtime/install-cuda.ts');
  const megabytes = (bytes: number): number => Math.round(bytes / 1e6);
  let bar: { file: string; progress: ReturnType<typeof context.progress> } | undefined;
  const { folder, version, libraries } = await stoppable(context, 'Run the same command to go on.', () =>
    installCuda({
      signal: context.signal,
      onProgress: (file, done, total) => {
        if (bar?.file !== file) {
          bar?.progress.finish();
          bar = {
            file,
            progress: context.progress(total === undefined ? undefined : megabytes(total), 'Fetching', {
              unit: 'MB',
              start: megabytes(done),
            }),
          };
        }
        bar.progress.update(megabytes(done), { note: file });
      },
    }),
  );
  bar?.progress.finish();
  return {
    data: { folder, version, libraries },
    text: `ONNX Runtime ${version} for CUDA is in ${folder}.\nNext: visedit devices`,
  };
}
