import ArgumentParser
import Foundation
import SweepSecurity

struct CertsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "certs", abstract: "Make the credentials by which the parties know each other.",
    discussion: """
      A small authority signs one certificate for the coordinator, one for each worker machine, and \
      one for each operator. Each party gets one file, its --credentials, and shows its certificate \
      to the others (mutual TLS 1.3). The authority's own file, ca.pem, makes further certificates: \
      keep it where neither coordinator nor workers run.

      EXAMPLES:
        biassweep certs init --host head.example.org --host 10.0.0.5
        biassweep certs worker node7
        biassweep certs show certs/node7.pem
      """,
    subcommands: [Initialise.self, Worker.self, Operator.self, Coordinator.self, Show.self])

  struct Initialise: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "init",
      abstract: "Make an authority, and credentials for a coordinator, a worker and an operator.",
      discussion: """
        EXAMPLES:
          biassweep certs init --host head.example.org --host 10.0.0.5
          biassweep certs init --directory /secure/certs --days 90 --json
        """)

    @OptionGroup var target: CertificateTarget

    @Option(
      help: "DNS name or address at which workers reach the coordinator; may be given repeatedly.")
    var host: [String] = []

    @Option(help: "Days that the authority is valid.")
    var authorityDays = CertificateAuthority.daysMax

    func run() throws {
      do {
        try FileManager.default.createDirectory(
          atPath: target.directory, withIntermediateDirectories: true,
          attributes: [.posixPermissions: 0o700])
      } catch {
        throw InfrastructureError(
          description: "Cannot make the directory \(target.directory): "
            + error.localizedDescription)
      }
      let now = Date()
      let authority = try CertificateAuthority(days: authorityDays, now: now)
      try authority.write(to: target.authorityPath)
      let parties: [(PeerRole, [String])] = [
        (.coordinator, CertificateTarget.coordinatorHosts(host)), (.worker, []), (.operator, []),
      ]
      var files = [
        CertificateFile(
          file: target.authorityPath, role: "authority", name: "",
          expires: authority.certificate.notValidAfter)
      ]
      for (role, hosts) in parties {
        files.append(
          try target.issue(authority, role: role, name: role.rawValue, hosts: hosts, now: now))
      }
      try target.print(files)
    }
  }

  struct Worker: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Make a worker machine's credentials.",
      discussion: """
        Workers with these credentials are called NAME/…, and none can speak for another machine's.

        EXAMPLES:
          biassweep certs worker node7
          biassweep certs worker node7 --directory /secure/certs --days 30
        """)

    @OptionGroup var target: CertificateTarget
    @Argument(help: "The machine's name: letters, digits, dots, hyphens.")
    var name: String

    func run() throws { try target.issueAndPrint(.worker, name: name) }
  }

  struct Operator: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Make credentials for looking at a running sweep and steering it.",
      discussion: """
        EXAMPLES:
          biassweep certs operator alice
        """)

    @OptionGroup var target: CertificateTarget
    @Argument(help: "Who holds it: letters, digits, dots, hyphens.")
    var name: String

    func run() throws { try target.issueAndPrint(.operator, name: name) }
  }

  struct Coordinator: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Make credentials for a further coordinator.",
      discussion: """
        EXAMPLES:
          biassweep certs coordinator head2 --host head2.example.org
        """)

    @OptionGroup var target: CertificateTarget
    @Argument(help: "Its name: letters, digits, dots, hyphens.")
    var name: String
    @Option(
      help: "DNS name or address at which workers reach the coordinator; may be given repeatedly.")
    var host: [String] = []

    func run() throws {
      try target.issueAndPrint(
        .coordinator, name: name, hosts: CertificateTarget.coordinatorHosts(host))
    }
  }

  struct Show: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Print whose credentials a file holds, and until when they are valid.",
      discussion: """
        Ends with status 2 if they have expired.

        EXAMPLES:
          biassweep certs show certs/worker.pem --json | jq -r .[0].expires
        """)

    @Argument(help: "A file made by `biassweep certs`.")
    var file: String
    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
      let credentials = try Credentials(path: file, roles: PeerRole.allCases, now: Date())
      try CertificateFile.print(
        [
          CertificateFile(
            file: file, role: credentials.identity.role.rawValue, name: credentials.identity.name,
            expires: credentials.certificate.notValidAfter)
        ], json: json)
    }
  }
}

/// Where certificates go, and how long they are valid.
struct CertificateTarget: ParsableArguments {
  @Option(help: "Directory of the authority and of what it signs.")
  var directory = "certs"

  @Option(help: "Days that the new certificates are valid.")
  var days = 365

  @Flag(help: "Print JSON.")
  var json = false

  var authorityPath: String { directory + "/ca.pem" }

  /// The machine itself always reaches its coordinator.
  static func coordinatorHosts(_ hosts: [String]) -> [String] {
    hosts + ["localhost", "127.0.0.1", "::1"].filter { !hosts.contains($0) }
  }

  func issue(
    _ authority: CertificateAuthority, role: PeerRole, name: String, hosts: [String], now: Date
  ) throws -> CertificateFile {
    let credentials = try authority.issue(
      PeerIdentity(role: role, name: name), hosts: hosts, days: days, now: now)
    let path = "\(directory)/\(name).pem"
    try credentials.write(to: path)
    return CertificateFile(
      file: path, role: role.rawValue, name: name, expires: credentials.certificate.notValidAfter)
  }

  func issueAndPrint(_ role: PeerRole, name: String, hosts: [String] = []) throws {
    let authority = try CertificateAuthority(path: authorityPath)
    try print([issue(authority, role: role, name: name, hosts: hosts, now: Date())])
  }

  func print(_ files: [CertificateFile]) throws { try CertificateFile.print(files, json: json) }
}

/// A line of what `certs` prints.
struct CertificateFile: Encodable {
  let file: String
  let role: String
  let name: String
  let expires: Date

  static func print(_ files: [CertificateFile], json: Bool) throws {
    if json { return try Console.output(json: files) }
    Console.output(
      TextTable(
        header: ["file", "role", "name", "expires"],
        rows: files.map {
          [$0.file, $0.role, $0.name, $0.expires.formatted(.iso8601.year().month().day())]
        }
      ).text)
  }
}
