import GRPCCore
import GRPCNIOTransportHTTP2Posix
import Logging
import NIOCore
import NIOHPACK
import NIOHTTP2

/// Ends a call whose next message is too long as soon as its length is said, before any of it is
/// kept, and tells the caller why.
///
/// The transport has such a limit too, but it only resets the stream. Then nobody can know whether
/// the caller hears a reason, or whether the call's handler hears of the length before it hears that
/// it was cancelled; so neither an answer nor a line in the log could be relied on.
private final class MessageSizeGate: ChannelDuplexHandler {
  typealias InboundIn = HTTP2Frame.FramePayload
  typealias InboundOut = HTTP2Frame.FramePayload
  typealias OutboundIn = HTTP2Frame.FramePayload
  typealias OutboundOut = HTTP2Frame.FramePayload

  private let bytesMax: Int
  private let refused: (_ reason: String) -> Void
  private var framing = MessageFraming()
  private var hasAnswered = false
  private var isRefusing = false

  init(bytesMax: Int, refused: @escaping (_ reason: String) -> Void) {
    self.bytesMax = bytesMax
    self.refused = refused
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard !isRefusing else { return }
    if case .data(let frame) = unwrapInboundIn(data), case .byteBuffer(let bytes) = frame.data,
      let length = framing.lengths(in: bytes.readableBytesView).first(where: { $0 > bytesMax })
    {
      refuse(context, "a message of \(length) bytes, \(bytesMax) are allowed")
    } else {
      context.fireChannelRead(data)
    }
  }

  func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    guard !isRefusing else {
      promise?.fail(MessageTooLong())
      return
    }
    if case .headers = unwrapOutboundIn(data) { hasAnswered = true }
    context.write(data, promise: promise)
  }

  private func refuse(_ context: ChannelHandlerContext, _ reason: String) {
    isRefusing = true
    refused(reason)
    var trailers: HPACKHeaders =
      hasAnswered ? [:] : [":status": "200", "content-type": "application/grpc"]
    trailers.add(name: "grpc-status", value: "\(RPCError.Code.resourceExhausted.rawValue)")
    trailers.add(name: "grpc-message", value: reason)
    context.write(
      wrapOutboundOut(.headers(.init(headers: trailers, endStream: true))), promise: nil)
    // What the caller still sends is not wanted (RFC 9113, section 8.1).
    context.writeAndFlush(wrapOutboundOut(.rstStream(.noError)), promise: nil)
    context.fireErrorCaught(MessageTooLong())
  }
}

/// Ends a call whose caller was told why already, and with it the log.
package struct MessageTooLong: Error {}

/// Finds the lengths of a call's messages in its bytes: each is preceded by one byte that says
/// whether it is compressed, and four for its length.
package struct MessageFraming {
  private static let prefixBytes = 5
  /// Of the current prefix.
  private var seen = 0
  private var length = 0
  /// Of the current message, after its prefix.
  private var left = 0

  package init() {}

  /// The lengths whose prefixes end in these bytes, which follow those of earlier calls.
  package mutating func lengths(in bytes: some Collection<UInt8>) -> [Int] {
    var found: [Int] = []
    var rest = bytes[...]
    while let byte = rest.first {
      if left > 0 {
        let skipped = min(left, rest.count)
        rest = rest.dropFirst(skipped)
        left -= skipped
        continue
      }
      rest = rest.dropFirst()
      if seen > 0 { length = length << 8 | Int(byte) }
      seen += 1
      if seen == Self.prefixBytes {
        found.append(length)
        (left, length, seen) = (length, 0, 0)
      }
    }
    return found
  }
}

extension SecureListener {
  /// For the transport's configuration: refuses messages of more than `bytesMax` bytes.
  package func limitingMessages(
    to bytesMax: Int
  ) -> HTTP2ServerTransport.Config.ChannelDebuggingCallbacks {
    let (peers, logger) = (peers, logger)
    return .init(
      onBindTCPListener: nil, onAcceptTCPConnection: nil,
      onAcceptHTTP2Stream: { stream in
        stream.eventLoop.makeCompletedFuture {
          let peer = ConnectedPeers.name(of: stream.parent?.remoteAddress)
          let gate = MessageSizeGate(bytesMax: bytesMax) { reason in
            peers.logRefusal(
              logger, peer: peers.identity(of: peer)?.name ?? peer, reason: reason)
          }
          try stream.pipeline.syncOperations.addHandler(gate, position: .first)
        }
      })
  }
}
