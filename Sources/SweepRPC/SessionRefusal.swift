import GRPCCore

/// Why the coordinator turns a session or an artifact down. The one place where causes meet RPC
/// status codes.
package enum SessionRefusal: Error, Sendable, Hashable {
  /// Retrying cannot help: the programs differ.
  case otherVersion(worker: String, coordinator: String)
  /// Retrying cannot help: the worker belongs to another sweep.
  case otherSweep
  /// Retrying cannot help: the messages break the protocol.
  case protocolViolation(String)
  /// The coordinator is ending; retrying helps once it is back.
  case unavailable(String)
  /// Retrying cannot help: no such artifact.
  case artifactUnknown(String)
  /// Retrying may help: the bytes were not those that the digest names.
  case artifactDamaged(String)
  /// Retrying cannot help: the caller's certificate does not allow it.
  case forbidden(String)
  /// The caller kept the coordinator waiting for too long.
  case tooSlow(String)
  /// Retrying helps once there is space.
  case storageFailed(String)

  package var rpcError: RPCError {
    switch self {
    case .otherVersion(let worker, let coordinator):
      RPCError(
        code: .failedPrecondition,
        message: "the worker is BiasSweep \(worker), the coordinator \(coordinator); results of "
          + "different versions are not mixed: install the same version on both")
    case .otherSweep:
      RPCError(
        code: .failedPrecondition,
        message: "the coordinator runs another sweep than the one this worker was started for; "
          + "start the worker anew")
    case .protocolViolation(let detail):
      RPCError(code: .invalidArgument, message: detail)
    case .unavailable(let detail):
      RPCError(code: .unavailable, message: detail)
    case .artifactUnknown(let digest):
      RPCError(code: .notFound, message: "there is no artifact \(digest)")
    case .artifactDamaged(let detail):
      RPCError(code: .dataLoss, message: detail)
    case .forbidden(let detail):
      RPCError(code: .permissionDenied, message: detail)
    case .tooSlow(let detail):
      RPCError(code: .deadlineExceeded, message: detail)
    case .storageFailed(let detail):
      RPCError(code: .resourceExhausted, message: detail)
    }
  }

  /// Whether a session that ended with this error may be tried again.
  package static func isWorthRetrying(_ error: RPCError) -> Bool {
    switch error.code {
    case .unavailable, .deadlineExceeded, .aborted, .cancelled, .unknown, .internalError, .dataLoss:
      true
    default: false
    }
  }
}
