/** Tables of what an editor takes, with the defaults that its own code gives for a mini and for a model of a published size. */
import { ftLSettings } from '../../src/editors/ft-l.ts';
import { ftVSettings } from '../../src/editors/ft-v.ts';
import { ikeConfig } from '../../src/editors/ike.ts';
import type { EditorId } from '../../src/editors/index.ts';
import { keConfig } from '../../src/editors/ke.ts';
import { lteConfig } from '../../src/editors/lte/train.ts';
import { mendConfig } from '../../src/editors/mend.ts';
import { seracConfig } from '../../src/editors/serac/train.ts';
import { tpSettings } from '../../src/editors/tp.ts';
import { veadConfig } from '../../src/editors/vead/vead.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { code, prose, table } from './markdown.ts';
import { families, largeOf, miniOf } from './published.ts';

/** Values by the name that an editor's configuration gives them. */
type Defaults = Readonly<Record<string, unknown>>;

/** VEAD's configuration is grouped; its options are not. */
function veadDefaults(vlm: Vlm): Defaults {
  const { losses, parts, hint, locality, traced, layer, ...rest } = veadConfig(vlm);
  return {
    ...{ from: layer, traced: traced.join(','), ...rest, ...parts },
    ...{ lambda: losses.up, lossUp: losses.up > 0, lossDown: losses.down > 0, lossAttribution: losses.attribution > 0 },
    ...{ weightLocality: losses.loc, weightOthers: losses.others, hintBias: hint.bias, hintUntil: hint.until, hintEnd: hint.end },
    ...{ localitySameImage: locality.sameImage, localitySameQuestion: locality.sameQuestion },
  };
}

const asDefaults = (config: object): Defaults => Object.fromEntries(Object.entries(config));

const defaultsOf: Readonly<Record<EditorId, (vlm: Vlm) => Defaults>> = {
  'ft-l': () => asDefaults(ftLSettings()),
  'ft-v': (vlm) => asDefaults(ftVSettings(vlm)),
  ike: (vlm) => asDefaults(ikeConfig(vlm, undefined)),
  ke: (vlm) => asDefaults(keConfig(vlm)),
  lte: (vlm) => asDefaults(lteConfig(vlm)),
  mend: (vlm) => asDefaults(mendConfig(vlm)),
  serac: (vlm) => asDefaults(seracConfig(vlm)),
  tp: (vlm) => asDefaults(tpSettings(vlm)),
  vead: veadDefaults,
};

/** What each value is; `train` has options of its own for some. */
const meanings: Readonly<Record<string, string>> = {
  steps: '`--steps`: optimizer steps',
  rate: '`--lr`: learning rate',
  batch: '`--batch`: records per step',
  microBatch: '`--micro-batch`: records whose gradients are computed at once',
  from: '`--layer`: the first decoder layer that it acts on, from 0',
  layer: '`--layer`: decoder layer whose states it reads, from 0',
  hold: 'share of the steps at the constant rate, before it falls to `lastRate`',
  lastRate: 'share of the rate that is left at the end',
  clip: "largest norm of a step's gradient",
  budget: 'bytes of frozen states kept in memory',
  decay: 'decoupled weight decay',
  until: 'steps end once the loss is below',
  k: 'demonstrations before the fact',
  context: 'most tokens before the query',
  pool: 'training edits in the index',
  pictures: 'whether pictures are read too',
  lstm: 'width of each direction of the LSTM',
  condition: 'width between the LSTM and the gates',
  window: 'tokens of a text that are read',
  start: 'step down the gradient that an untrained editor makes',
  smoothing: 'label smoothing',
  marginMax: 'margin of KL at the start',
  marginMin: 'margin of KL at the end',
  multiplierRate: 'rate of the multiplier λ',
  success: 'mean −log p of requests below which the margin is narrowed',
  rank: 'rank of what is trained; 0: whole matrices',
  locality: 'weight of the locality losses',
  retrievalLayer: 'decoder layer whose states say what is similar',
  calibration: 'training records that keys and threshold are taken from',
  stepSize: 'step size α at the start',
  stepRate: 'rate of α',
  reliability: "weight of the request's own loss",
  generality: 'weight of the rephrasings',
  normRecords: 'training edits that means and deviations are taken from',
  scopeWidth: 'hidden width of the scope classifier',
  scopeOutput: 'width of its embedding',
  width: 'width of what is trained',
  layers: 'layers of the counterfactual model',
  heads: 'attention heads',
  neurons: 'most neurons of an edit',
  activationLoss: 'weight of l_a',
  memoryLoss: 'weight of l_m1 and l_m2',
  traced: 'layers L_h whose attribution the mapper learns',
  influenceWidth: "width of the influence mapper's perceptrons",
  sampled: 'visual positions drawn per step, |N_s|',
  draws: 'noise draws of the attribution target',
  sigma: 'standard deviation of that noise',
  influenceMapper: 'false: the gate is 1 everywhere',
  crossAttention: 'false: no edit signal reaches the visual tokens',
  lambda: 'λ, the weight of the three mapper losses',
  lossUp: 'false: without ℓ_im↑',
  lossDown: 'false: without ℓ_im↓',
  lossAttribution: 'false: without ℓ_ima',
  weightLocality: 'weight of ℓ_loc',
  weightOthers: "beyond the paper: weight of ℓ_im↓ over the pictures of the batch's other edits",
  muonRate: 'beyond the paper: matrices learn by Muon at this rate; 0: by Adam',
  hintBias: 'beyond the paper: bias of the attention to all but the target; 0: none',
  hintUntil: 'last step with the whole bias',
  hintEnd: 'step at which the bias is gone',
  valueCopy: 'beyond the paper: the value path starts as a copy',
  localitySameImage: 'beyond the paper: share of draws with another question about the same picture',
  localitySameQuestion: 'beyond the paper: share of draws with the same question about another picture',
};

const own: Partial<Record<EditorId, Readonly<Record<string, string>>>> = {
  vead: { from: '`--layer`: l_e, the decoder layer whose output is adapted, from 0', width: 'm, the width of the adapter' },
  serac: {
    width: 'width of the counterfactual model',
    heads: 'its attention heads',
    window: 'tokens of each text that it reads',
  },
  mend: { rank: 'rank of U V' },
  'ft-l': { steps: 'most steps of an edit', rate: 'learning rate' },
  'ft-v': { steps: 'most steps of an edit', rate: 'learning rate' },
  tp: { steps: 'steps of an edit', rate: 'learning rate' },
};

const shown = (value: unknown): string =>
  value === undefined ? 'none' : code(Array.isArray(value) ? value.join(',') : String(value));

/** Settings of an editor as a table. @throws Error that names a setting without a meaning */
export function settingsTable(editor: EditorId): string {
  const [{ mini, large }] = families;
  const small = defaultsOf[editor](miniOf(families[0]));
  const published = defaultsOf[editor](largeOf(families[0]));
  const rows = Object.keys(small).map((name) => {
    const meaning = own[editor]?.[name] ?? meanings[name];
    if (meaning === undefined) throw new Error(`${editor}: say in scripts/docs/settings.ts what ${name} is`);
    const [, option, rest] = /^(`--[^`]+`): (.*)$/.exec(meaning) ?? [undefined, code(name), meaning];
    return [option!, prose(rest!), shown(small[name]), shown(published[name])];
  });
  return table(['setting', 'meaning', mini, large], rows);
}
