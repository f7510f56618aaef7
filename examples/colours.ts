/** A new data set: one record of one's own in the official layout, read, edited and evaluated. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { editorNamed, evaluateRecords, figures, loadModel, loadRecords } from 'visedit';

mkdirSync('pictures', { recursive: true });
for (const [name, colour] of Object.entries({ red: '#ff0000', 'dark-red': '#8b0000', blue: '#0000ff' })) {
  const drawing = `<svg xmlns="http://www.w3.org/2000/svg" width="72" height="72"><rect width="72" height="72" fill="${colour}"/></svg>`;
  writeFileSync(`pictures/${name}.png`, figures.toPng(drawing, 1));
}
const record = {
  // the edit: about this picture, asked so, answer this
  image: 'red.png',
  src: 'What is in the picture?',
  alt: 'pizza',
  // in its scope: the same in other words, the same of another rendering
  rephrase: 'What is there?',
  image_rephrase: 'dark-red.png',
  // out of its scope: without a picture, and about another picture
  loc: 'What is one plus five',
  loc_ans: 'six',
  m_loc: 'blue.png',
  m_loc_q: 'What is the background?',
  m_loc_a: 'blue',
};
writeFileSync('colours_vqa.json', JSON.stringify([record]));

const records = loadRecords('colours_vqa.json', 'pictures');
const vlm = loadModel('mini-llava', { threads: 1 });
const { metrics } = await evaluateRecords(vlm, await editorNamed('ft-l'), undefined, records);
await vlm.release();
console.log(`${metrics.count} edit, reliability ${metrics.reliability}`);
