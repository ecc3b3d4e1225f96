import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// A real HTTP server on a loopback port of its own that answers as a script says.
final class FaultyServer: Sendable {
  enum Action: Sendable {
    case answer(status: Int = 200, headers: [String: String] = [:], body: String)
    /// Announces more bytes than it sends, and closes.
    case truncated(body: String)
    /// Closes without an answer.
    case closed
    /// Never answers.
    case silent
  }

  struct Request: Sendable {
    /// From 0, over all connections.
    let number: Int
    let path: String
    let authorization: String?
    let body: [UInt8]

    func json() throws -> [String: any Sendable] {
      var members: [String: any Sendable] = [:]
      let object = try JSONSerialization.jsonObject(with: Data(body)) as? [String: Any]
      for (key, value) in object ?? [:] {
        switch value {
        case let text as String: members[key] = text
        case let number as NSNumber: members[key] = number.doubleValue
        default: members[key] = "\(value)"
        }
      }
      return members
    }
  }

  private struct State {
    var requests: [Request] = []
    var open = 0
    var mostOpen = 0
  }

  private let state = Mutex(State())
  private let channel: any Channel
  private let script: @Sendable (Request) -> Action

  var url: String { "http://127.0.0.1:\(channel.localAddress?.port ?? 0)/v1" }
  var requests: [Request] { state.withLock { $0.requests } }
  /// Requests that were unanswered at the same time, at most.
  var mostOpen: Int { state.withLock { $0.mostOpen } }

  init(_ script: @escaping @Sendable (Request) -> Action) throws {
    self.script = script
    let box = Box()
    channel = try ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.configureHTTPServerPipeline()
          try channel.pipeline.syncOperations.addHandler(Handler(box: box))
        }
      }
      .bind(host: "127.0.0.1", port: 0).wait()
    box.server.withLock { [weak self] in $0 = self }
  }

  deinit { channel.close(promise: nil) }

  /// A completion as servers write it.
  static func completion(_ text: String, logprobs: [String: Double] = [:], tokens: Int = 7)
    -> String
  {
    let escaped = text.replacing("\n", with: "\\n").replacing("\"", with: "\\\"")
    let alternatives = logprobs.sorted { $0.key < $1.key }.map {
      "{\"token\":\"\($0.key)\",\"logprob\":\($0.value)}"
    }.joined(separator: ",")
    let first = logprobs.max { $0.value < $1.value }
    let part =
      first.map {
        ",\"logprobs\":{\"content\":[{\"token\":\"\($0.key)\",\"logprob\":\($0.value),"
          + "\"top_logprobs\":[\(alternatives)]}]}"
      } ?? ""
    return "{\"id\":\"x\",\"object\":\"chat.completion\",\"choices\":[{\"index\":0,"
      + "\"message\":{\"role\":\"assistant\",\"content\":\"\(escaped)\"}\(part),"
      + "\"finish_reason\":\"stop\"}],\"usage\":{\"total_tokens\":\(tokens)}}"
  }

  private func opened() {
    state.withLock {
      $0.open += 1
      $0.mostOpen = max($0.mostOpen, $0.open)
    }
  }

  private func closed() { state.withLock { $0.open -= 1 } }

  private func action(path: String, authorization: String?, body: [UInt8]) -> Action {
    let request = state.withLock { state in
      let request = Request(
        number: state.requests.count, path: path, authorization: authorization, body: body)
      state.requests.append(request)
      return request
    }
    return script(request)
  }

  private final class Box: Sendable {
    let server = Mutex<FaultyServer?>(nil)
    private let unused = 0
  }

  private final class Handler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let box: Box
    private var head: HTTPRequestHead?
    private var body: [UInt8] = []

    init(box: Box) { self.box = box }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      switch unwrapInboundIn(data) {
      case .head(let head):
        self.head = head
        body = []
        box.server.withLock { $0 }?.opened()
      case .body(let part): body += Array(part.readableBytesView)
      case .end:
        guard let server = box.server.withLock({ $0 }), let head else { return }
        let action = server.action(
          path: head.uri, authorization: head.headers.first(name: "Authorization"), body: body)
        // A moment in which others can come in.
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        context.eventLoop.scheduleTask(in: .milliseconds(2)) {
          server.closed()
          bound.value.0.perform(action, bound.value.1)
        }
      }
    }

    private func perform(_ action: Action, _ context: ChannelHandlerContext) {
      func write(_ status: Int, _ fields: [String: String], _ body: String, length: Int) {
        var headers = HTTPHeaders(fields.sorted { $0.key < $1.key }.map { ($0.key, $0.value) })
        headers.add(name: "Content-Length", value: "\(length)")
        context.write(
          wrapOutboundOut(
            .head(
              HTTPResponseHead(
                version: .http1_1, status: HTTPResponseStatus(statusCode: status),
                headers: headers))), promise: nil)
        context.write(
          wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: body)))), promise: nil)
      }
      switch action {
      case .answer(let status, let headers, let body):
        write(status, headers, body, length: body.utf8.count)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
      case .truncated(let body):
        write(200, [:], body, length: body.utf8.count + 100)
        context.flush()
        context.close(promise: nil)
      case .closed: context.close(promise: nil)
      case .silent: break
      }
    }
  }
}
