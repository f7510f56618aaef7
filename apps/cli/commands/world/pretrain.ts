/** `visedit world pretrain`: trains a mini backbone on the mini world, from nothing to a published-layout folder. */
import { defineCommand } from '../../frame/command.ts';
import { flag, integer, outFolder, seed, text } from '../../frame/values.ts';
import { stoppable } from '../../stoppable.ts';

export const command = defineCommand({
  details:
    'Trains the vision tower, then the connector (and the Q-Former) and the decoder, in stages. mini-minigpt4 begins with parts of mini-llava and mini-blip2-opt, as the published MiniGPT-4 does with parts of others; mini-qwen3-vl begins with the decoder of mini-llava, and sees scenes of four sizes and shapes. Checkpoints are written on the way, and the same command continues after a stop. The new folder is accepted wherever a MODEL is asked for.',
  arguments: { model: text('mini-llava, mini-blip2-opt, mini-minigpt4 or mini-qwen3-vl', { required: true }) },
  options: {
    out: outFolder('folder to write', { required: true }),
    seed: seed(),
    visionSteps: integer('number of steps of the vision stage', { min: 1 }),
    decoderSteps: integer('number of steps of the decoder stage', { min: 1 }),
    threads: integer('number of threads (default: all cores)', { min: 1 }),
    resume: flag('continue from the checkpoints in --out (the default when there are any)'),
  },
  examples: ['world pretrain mini-llava --seed 1 --out runs/mini-llava'],
  async run({ model, out, seed, visionSteps, decoderSteps, threads, resume }, context) {
    const { pretrain } = await import('../../../../lab/pretraining/pretrain.ts');
    const bars = new Map<string, ReturnType<typeof context.progress>>();
    const start = () =>
      pretrain({
        model,
        seed,
        out,
        threads,
        resume: resume || undefined,
        signal: context.signal,
        settings: {
          ...(visionSteps === undefined ? {} : { vision: { steps: visionSteps } }),
          ...(decoderSteps === undefined ? {} : { decoder: { steps: decoderSteps } }),
        },
        onStep: (stage, step, steps, { loss }) => {
          let bar = bars.get(stage);
          if (bar === undefined) {
            bar = context.progress(steps, `Stage ${stage}`, { unit: 'steps', start: step - 1 });
            bars.set(stage, bar);
          }
          bar.update(step, { note: `loss ${loss.toFixed(3)}` });
          if (step === steps) bar.finish();
        },
      });
    const result = await stoppable(context, 'Give the same command again to go on.', start);
    return {
      data: result,
      text: `Written to ${result.folder} in ${Math.round(result.seconds)} s. Next: visedit world exam ${result.folder}`,
    };
  },
});
