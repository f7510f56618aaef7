/** The experiments around the library: the mini world, its models and the checks against reference implementations. */

export { conformance } from './conformance/run.ts';
export { type ContractCheck, type ContractWorld, closeContractWorld, editorContract, openContractWorld } from './contract.ts';
export { type ExamResult, exam } from './pretraining/exam.ts';
export { pretrain } from './pretraining/pretrain.ts';
export { buildWorld } from './world/build.ts';
