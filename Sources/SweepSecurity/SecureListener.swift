import GRPCNIOTransportHTTP2Posix
import Logging
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS

/// Accepts connections for gRPC: TLS where asked for, and limits before any byte is parsed.
package struct SecureListener: HTTP2ServerTransport.ListenerFactory {
  private let host: String
  private let port: Int
  private let security: RenewableSecurity
  let logger: Logger
  /// Who is connected.
  package let peers: ConnectedPeers
  package let eventLoopGroup: any EventLoopGroup

  /// - Parameter port: 0 for any free port.
  package init(
    host: String, port: Int, security: RenewableSecurity, limits: ConnectionLimits,
    logger: Logger
  ) {
    self.host = host
    self.port = port
    self.logger = logger
    self.security = security
    peers = ConnectedPeers(limits: limits, authenticated: security.isAuthenticated)
    eventLoopGroup = MultiThreadedEventLoopGroup.singleton
  }

  package func makeListeningChannel(
    listenerConfigurator: HTTP2ServerTransport.ListenerConfigurator,
    connectionConfigurator: HTTP2ServerTransport.ConnectionConfigurator
  ) async throws
    -> NIOAsyncChannel<HTTP2ServerTransport.ConnectionConfigurator.ConnectionChannel, Never>
  {
    try await ServerBootstrap(group: eventLoopGroup)
      .serverChannelOption(.backlog, value: 1024)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .serverChannelInitializer { listenerConfigurator.configure(channel: $0) }
      .bind(host: host, port: port) { channel in
        // Of this moment: credentials may be renewed while the listener runs.
        let context = security.serverContext
        return channel.eventLoop.makeCompletedFuture {
          if let context {
            try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: context))
          }
          try channel.pipeline.syncOperations.addHandler(
            ConnectionGate(peers: peers, logger: logger))
        }.flatMap {
          connectionConfigurator.configure(
            channel: channel, tls: context == nil ? .none : .configured(requireALPN: true))
        }
      }
  }
}

/// Lets a connection's bytes through to HTTP/2 only while it keeps to the limits, and once it has
/// shown a certificate where one is asked for.
private final class ConnectionGate: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias InboundOut = ByteBuffer

  private enum State {
    case new
    case admitted(address: String, deadline: Scheduled<Void>)
    case proven(address: String)
    case closed
  }

  private let peers: ConnectedPeers
  private let logger: Logger
  private var state = State.new
  private var peer = ""
  private var prefaceLeft = ConnectionGate.preface[...]

  /// The first bytes of every HTTP/2 connection (RFC 9113, section 3.4).
  private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

  init(peers: ConnectedPeers, logger: Logger) {
    self.peers = peers
    self.logger = logger
  }

  func channelActive(context: ChannelHandlerContext) {
    let address = context.remoteAddress?.ipAddress ?? "unknown"
    peer = ConnectedPeers.name(of: context.remoteAddress)
    context.fireChannelActive()
    if let limit = peers.admit(address) { return refuse(context, limit) }
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    let deadline = context.eventLoop.scheduleTask(
      in: TimeAmount(peers.limits.proofTime)
    ) {
      let (gate, context) = bound.value
      gate.refuse(context, "it was too slow to say what it wants")
    }
    state = .admitted(address: address, deadline: deadline)
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if case .handshakeCompleted? = event as? TLSUserEvent, !identify(context) { return }
    context.fireUserInboundEventTriggered(event)
  }

  /// Remembers who the certificate says that the peer is.
  private func identify(_ context: ChannelHandlerContext) -> Bool {
    do {
      let certificate = try context.pipeline.syncOperations.nioSSL_peerCertificate()
      guard let certificate, try peers.identify(peer, certificate: certificate.toDERBytes()) else {
        refuse(context, "its certificate names no role and name")
        return false
      }
      return true
    } catch {
      refuse(context, "its certificate cannot be read: \(error)")
      return false
    }
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch state {
    case .new, .closed: return
    case .proven: break
    case .admitted(let address, let deadline):
      if prove(unwrapInboundIn(data).readableBytesView) {
        if prefaceLeft.isEmpty {
          deadline.cancel()
          peers.prove(address)
          state = .proven(address: address)
        }
      } else {
        return refuse(context, "it does not speak HTTP/2")
      }
    }
    context.fireChannelRead(data)
  }

  /// - Returns: false for bytes that are no HTTP/2.
  private func prove(_ bytes: ByteBufferView) -> Bool {
    let common = min(bytes.count, prefaceLeft.count)
    guard bytes.prefix(common).elementsEqual(prefaceLeft.prefix(common)) else { return false }
    prefaceLeft = prefaceLeft.dropFirst(common)
    return true
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    if case .admitted = state { log("\(error)") }
    context.fireErrorCaught(error)
  }

  func channelInactive(context: ChannelHandlerContext) {
    leave()
    context.fireChannelInactive()
  }

  private func refuse(_ context: ChannelHandlerContext, _ reason: String) {
    log(reason)
    leave()
    context.close(promise: nil)
  }

  private func leave() {
    switch state {
    case .new, .closed: break
    case .admitted(let address, let deadline):
      deadline.cancel()
      peers.remove(peer, address: address, proven: false)
    case .proven(let address): peers.remove(peer, address: address, proven: true)
    }
    state = .closed
  }

  private func log(_ reason: String) {
    peers.logRefusal(logger, peer: peer, reason: reason)
  }
}
