/** `visedit edits export`: the edits of a set as weights for other programs. */

import { editorModules, loadEditors } from '../../editor-option.ts';
import { defineCommand } from '../../frame/command.ts';
import { choice, integer, outFolder } from '../../frame/values.ts';
import { askingOptions, ledgerArgument, openModel } from '../../ledger.ts';

export const command = defineCommand({
  details: `Edits of editors that change weights (ft-l, ft-v, ke, m-ore, mend) leave the program in two forms. All edits of the set that are on are added up.

peft: a LoRA adapter, \`adapter_config.json\` and \`adapter_model.safetensors\`, which the Python package \`peft\` loads onto the same model of transformers. A change that an edit holds as factors keeps them; one that it holds whole (ft-l, ft-v) has the rank of the matrix's smaller side. A change above --max-rank is refused with the rank that it needs.

merged: the whole model with the changes in its weights, which this program and transformers open. Changed weights are written in the type that the model has, unless --dtype says otherwise; half precision rounds them.`,
  arguments: { ledger: ledgerArgument },
  options: {
    out: outFolder('folder to write', { required: true }),
    form: choice('what is written', ['peft', 'merged'], { default: 'peft' }),
    maxRank: integer('largest rank of an adapter', { default: 256, min: 1 }),
    editor: editorModules,
    model: askingOptions.model,
    dtype: choice('type of the merged weights (default: as they are stored)', ['float32', 'float16']),
  },
  examples: [
    'edits export corrections --out adapter',
    'edits export corrections --form merged --dtype float32 --out corrected-model',
  ],
  async run({ ledger: reference, out, form, maxRank, editor: modules, model, dtype }, context) {
    const [{ findSet, openLedger }, { setId }, { editorNamed }, { wholeChanges }, { builtInModels, modelFolder }] =
      await Promise.all([
        import('../../../../src/ledger/reference.ts'),
        import('../../../../src/ledger/ledger.ts'),
        import('../../../../src/editors/index.ts'),
        import('../../../../src/editors/gradients/changes.ts'),
        import('../../../../src/models/load.ts'),
      ]);
    await loadEditors(modules);
    const ledger = openLedger(reference, 'read');
    const set = findSet(ledger, reference);
    const stored = ledger.active(set);
    const [first] = stored;
    if (first === undefined) throw new Error(`no edit of ${setId(set)} is on; switch one on with \`visedit edits enable\``);
    const editor = await editorNamed(first.editor);
    if (editor.changes === undefined)
      throw new Error(
        `edits of ${editor.id} act beside the model's weights, so they cannot be written into weights; \`visedit serve\` and \`visedit generate --edits\` answer with them`,
      );
    const vlm = await openModel(first, { model }, context);
    const edits = stored.map(({ id }) => ledger.read(id));
    editor.with(vlm, edits.slice(0, 1));
    const changes = await editor.changes(vlm, edits);
    const facts = { ledger: reference.folder, set: setId(set), edits: edits.length, form, weights: [...changes.keys()] };
    if (form === 'peft') {
      const { writeAdapter } = await import('../../../../src/editors/export/peft.ts');
      const { ranks, bytes } = await writeAdapter(vlm, changes, { out, model: set.model, maxRank });
      await vlm.release();
      const largest = Math.max(...Object.values(ranks));
      return {
        data: { ...facts, out, ranks, bytes },
        text: `${edits.length} edits, ${Object.keys(ranks).length} matrices of rank up to ${largest}, ${(bytes / 1e6).toFixed(1)} MB: an adapter for peft in ${out}.`,
      };
    }
    const { convert } = await import('../../../../src/models/convert.ts');
    const whole = await wholeChanges(vlm, changes);
    await vlm.release();
    const given = model ?? set.model;
    const from = (builtInModels as readonly string[]).includes(given) ? modelFolder(given) : given;
    const written = await convert(from, {
      out,
      ...(dtype === undefined ? {} : { dtype }),
      changes: whole,
      signal: context.signal,
    });
    return {
      data: { ...facts, ...written },
      text: `${edits.length} edits in ${changes.size} weights of ${written.tensors}, ${(written.bytes / 1e6).toFixed(1)} MB: a model in ${written.out}.`,
    };
  },
});
