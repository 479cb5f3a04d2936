/** A client of the IndRNN service, for browsers and Node: docs/javascript.md. */

export type {
  Char,
  Completed,
  Explained,
  Label,
  ModelInfo,
  MotionEvent,
  Neurons,
  Part,
  Pending,
  Predicted,
  Prediction,
  QuestionAnswer,
  Result,
  SessionInfo,
} from "./answers.js";
export { Client, type ClientOptions, connect, Generation, Session, useSockets } from "./client.js";
export { HttpResponse } from "./commands.js";
export type { Reason } from "./conversation.js";
export {
  BadInput,
  ClientError,
  Conflict,
  ConnectionLost,
  DeadlineExceeded,
  NotFound,
  ProtocolError,
  Refused,
  SessionExpired,
  SessionLimit,
  StepConflict,
  StepGap,
  Unanswered,
  Unauthorized,
  Unavailable,
} from "./errors.js";
export type {
  CallOptions,
  CompleteOptions,
  Content,
  ExplainOptions,
  FrameOptions,
  GenerateOptions,
  Link,
  PredictOptions,
  SessionOptions,
  StepOptions,
} from "./options.js";
export type { Socket, SocketMaker } from "./wire.js";
