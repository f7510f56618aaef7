/** The image encoder: every layer, what replaces the placeholders, and what is added after decoder layers. */
import type { Tensor } from '../../src/graph/index.ts';
import { pictureCount } from '../../src/input/segments.ts';
import { joined } from '../../src/models/batch.ts';
import { visualPart } from '../../src/models/deep.ts';
import { Sites } from '../../src/models/sites.ts';
import { stackInputs, visionSites } from '../../src/models/vision.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Weights } from '../../src/nn/weights.ts';
import { tolerances } from './checks.ts';
import { askedIn, type Subject } from './subject.ts';

/** Sites of the image encoder: layers behind the one whose output is read are not computed. */
function namesOf({ architecture }: Vlm): ReadonlySet<string> {
  const sites = new Sites();
  architecture.vision(architecture.pixels(), new Weights(), sites);
  return new Set(sites.names());
}

export async function checkVision(subject: Subject): Promise<void> {
  const { fixture, vlm, checks } = subject;
  const { vision_layers: layers = 0 } = fixture.meta;
  const computed = namesOf(vlm);
  for (const [c, one] of fixture.meta.cases.entries()) {
    const given = Array.from({ length: layers }, (_, i) => i).filter((i) => fixture.tensor(`${c}.vision.${i}`) !== undefined);
    const numbers = given.filter((i) => computed.has(`vision.layers.${i}.out`));
    for (const i of given.filter((i) => !numbers.includes(i)))
      checks.note('vision.layers', `case ${c}: nothing reads layer ${i}`);
    const features = fixture.tensor(`${c}.features`);
    const asked = await askedIn(subject, one);
    if (pictureCount(asked) === 0) continue;
    const { pictures } = vlm.layout(asked);
    if (numbers.length > 0) {
      const names = numbers.map((i) => `vision.layers.${i}.out`);
      const program = await vlm.program(visionSites, names);
      const out = await program.run(stackInputs(pictures.map(({ prepared }) => prepared!.pixels())));
      numbers.forEach((i, n) => {
        const { data } = out[names[n]!] as Tensor<'float32'>;
        checks.values('vision.layers', tolerances.hidden, `${c}.vision.${i}`, data, fixture.need(`${c}.vision.${i}`).data);
      });
    }
    if (features === undefined) continue;
    const seen = joined(await Promise.all(pictures.map((picture) => picture.see())));
    const { hidden: d, deepLayers = 0 } = vlm.decoder;
    checks.values('vision.features', tolerances.hidden, `${c}.features`, visualPart(seen, 0, d).data, features.data);
    for (let k = 0; k < deepLayers; k++) {
      const expected = fixture.tensor(`${c}.deepstack.${k}`);
      if (expected !== undefined)
        checks.values(
          'vision.deepstack',
          tolerances.hidden,
          `${c}.deepstack.${k}`,
          visualPart(seen, k + 1, d).data,
          expected.data,
        );
    }
  }
}
