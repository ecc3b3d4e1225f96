// swift-tools-version: 6.2
import PackageDescription

// Vector code is compiled for AVX2 + FMA on x86-64 (any server since 2013). BIASSWEEP_PORTABLE=1
// builds for the baseline instruction set instead; other architectures always do.
#if arch(x86_64)
  let portable = Context.environment["BIASSWEEP_PORTABLE"] == "1"
  let vectorSwift: [SwiftSetting] = portable ? [] : [.unsafeFlags(["-Xcc", "-march=x86-64-v3"])]
  let vectorC: [CSetting] = portable ? [] : [.unsafeFlags(["-march=x86-64-v3"])]
#else
  let vectorSwift: [SwiftSetting] = []
  let vectorC: [CSetting] = []
#endif

let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
  .treatAllWarnings(as: .error),
]

let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let grpcCore = Target.Dependency.product(name: "GRPCCore", package: "grpc-swift-2")
let grpcTransport = Target.Dependency.product(
  name: "GRPCNIOTransportHTTP2Posix", package: "grpc-swift-nio-transport")

let certificates = Target.Dependency.product(name: "X509", package: "swift-certificates")

let package = Package(
  name: "biassweep",
  platforms: [.macOS(.v15)],
  products: [
    .executable(name: "biassweep", targets: ["biassweep"]),
    .executable(name: "biassweep-bench", targets: ["biassweep-bench"]),
    .executable(name: "biassweep-fuzz", targets: ["biassweep-fuzz"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-asn1", from: "1.7.4"),
    .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-nio-http2", from: "1.46.0"),
    .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
    .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0", traits: []),
    .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
    .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
    .package(url: "https://github.com/grpc/grpc-swift-2", from: "2.4.3"),
    .package(url: "https://github.com/grpc/grpc-swift-nio-transport", from: "2.9.2"),
    .package(url: "https://github.com/grpc/grpc-swift-protobuf", from: "2.4.1"),
    .package(url: "https://github.com/hummingbird-project/swift-mustache", from: "2.1.1"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
  ],
  targets: [
    // The study: what a sweep is, decided by values without clock, I/O or concurrency.
    .target(
      name: "SweepCore",
      dependencies: [crypto, .product(name: "HeapModule", package: "swift-collections")],
      swiftSettings: strict),
    .target(
      name: "SweepLedger",
      dependencies: ["SweepCore", .product(name: "GRDB", package: "GRDB.swift")],
      swiftSettings: strict),
    .target(
      name: "SweepRPC",
      dependencies: [
        "SweepCore", grpcCore, .product(name: "GRPCProtobuf", package: "grpc-swift-protobuf"),
        .product(name: "SwiftProtobuf", package: "swift-protobuf"),
      ],
      exclude: ["Protos"],
      swiftSettings: strict),
    .target(
      name: "SweepSecurity",
      dependencies: [
        certificates, crypto, logging, grpcCore, grpcTransport,
        .product(name: "SwiftASN1", package: "swift-asn1"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
        .product(name: "NIOTLS", package: "swift-nio"),
        .product(name: "NIOHTTP2", package: "swift-nio-http2"),
        .product(name: "NIOHPACK", package: "swift-nio-http2"),
        .product(name: "NIOSSL", package: "swift-nio-ssl"),
      ],
      swiftSettings: strict),
    .target(name: "SweepLog", dependencies: [logging], swiftSettings: strict),
    .target(
      name: "SweepCoordinator",
      dependencies: [
        "SweepCore", "SweepLedger", "SweepRPC", "SweepSecurity", logging, grpcCore, grpcTransport,
        crypto,
      ],
      swiftSettings: strict),
    .target(
      name: "SweepWorker",
      dependencies: [
        "SweepCore", "SweepRPC", "SweepSecurity", logging, grpcCore, grpcTransport, crypto,
      ],
      swiftSettings: strict),

    // Random numbers of one kind for all: streams that are a function of their seed.
    .target(name: "RandomStreams", swiftSettings: strict),
    // What samples say: intervals and tests. Knows nothing of sweeps.
    .target(name: "SweepStatistics", dependencies: ["RandomStreams"], swiftSettings: strict),

    // Findings from results: which bias was inherited, how certainly, and what goes with it.
    .target(
      name: "SweepAnalysis", dependencies: ["SweepCore", "SweepStatistics", "RandomStreams"],
      swiftSettings: strict),

    // The training core: knows nothing of sweeps.
    .systemLibrary(
      name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"])]),
    .target(
      name: "CTransformerKernels",
      cSettings: vectorC + [
        .unsafeFlags(["-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"])
      ]),
    .target(
      name: "TransformerKernels", dependencies: ["COpenBLAS", "CTransformerKernels"],
      swiftSettings: strict + vectorSwift),
    .target(
      name: "LanguageModel", dependencies: ["RandomStreams", "TransformerKernels", crypto],
      swiftSettings: strict + vectorSwift),
    .target(
      name: "BiasStudy",
      dependencies: [
        "SweepCore", "LanguageModel", "TransformerKernels", "SweepStatistics", "RandomStreams",
        crypto,
      ],
      resources: [.embedInCode("Resources")], swiftSettings: strict),

    // The study's YAML documents: task files, presets, and those of users.
    .target(
      name: "StudyDocuments",
      dependencies: ["SweepCore", .product(name: "Yams", package: "Yams")],
      resources: [.embedInCode("Tasks"), .embedInCode("Presets")], swiftSettings: strict),
    // Generators that are servers: all of the study's network code.
    .target(
      name: "ChatEndpoint",
      dependencies: [
        "BiasStudy", "SweepCore",
        .product(name: "AsyncHTTPClient", package: "async-http-client"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOHTTP1", package: "swift-nio"),
      ],
      swiftSettings: strict),
    .target(
      name: "SweepReport",
      dependencies: [
        "SweepCore", "SweepLedger", .product(name: "Mustache", package: "swift-mustache"),
      ],
      resources: [.embedInCode("Resources")], swiftSettings: strict),
    .executableTarget(
      name: "biassweep",
      dependencies: [
        "SweepCore", "SweepLedger", "SweepRPC", "SweepSecurity", "SweepLog", "SweepCoordinator",
        "SweepWorker", "SweepAnalysis", "SweepSimulation", "TransformerKernels", "LanguageModel",
        "BiasStudy", "StudyDocuments", "SweepReport", "ChatEndpoint", arguments, logging, grpcCore,
        grpcTransport,
        .product(name: "UnixSignals", package: "swift-service-lifecycle"),
      ],
      swiftSettings: strict),
    .executableTarget(
      name: "biassweep-bench",
      dependencies: [
        "SweepCore", "SweepLedger", "SweepRPC", "SweepCoordinator", "SweepWorker", "COpenBLAS",
        "TransformerKernels", "LanguageModel", "BiasStudy", "StudyDocuments", "CAllocationCount",
        "RandomStreams", arguments, logging, grpcCore, grpcTransport,
      ],
      swiftSettings: strict),
    // Depends on no network code, so that builds with sanitizers are short.
    .executableTarget(
      name: "biassweep-fuzz",
      dependencies: [
        "SweepCore", "LanguageModel", "BiasStudy", "StudyDocuments", "TransformerKernels",
        "RandomStreams",
      ],
      swiftSettings: strict),

    // Only for executables that measure: it takes the place of malloc.
    .target(name: "CAllocationCount"),
    .target(
      name: "SweepSimulation",
      dependencies: ["SweepCore", .product(name: "HeapModule", package: "swift-collections")],
      swiftSettings: strict),
    .target(
      name: "SweepTestKit", dependencies: ["SweepCore", "SweepSimulation"], swiftSettings: strict),
    .testTarget(
      name: "SweepCoreTests", dependencies: ["SweepCore", "SweepSimulation", "SweepTestKit"],
      swiftSettings: strict),
    .target(
      name: "FaultyStorage", path: "Tests/FaultyStorage",
      linkerSettings: [.linkedLibrary("sqlite3")]),
    .testTarget(
      name: "SweepLedgerTests",
      dependencies: [
        "SweepCore", "SweepLedger", "SweepTestKit", "FaultyStorage",
        .product(name: "GRDB", package: "GRDB.swift"),
      ],
      resources: [.copy("Fixtures")], swiftSettings: strict),
    .testTarget(
      name: "SweepCoordinatorTests",
      dependencies: [
        "SweepCore", "SweepLedger", "SweepRPC", "SweepSecurity", "SweepCoordinator", "SweepWorker",
        "SweepSimulation", "SweepTestKit", logging, grpcCore, grpcTransport,
        .product(name: "SwiftProtobuf", package: "swift-protobuf"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
        .product(name: "NIOSSL", package: "swift-nio-ssl"),
      ],
      swiftSettings: strict),
    .testTarget(
      name: "SweepSecurityTests",
      dependencies: ["SweepSecurity", "SweepSimulation", "SweepTestKit"],
      swiftSettings: strict),
    .testTarget(
      name: "SweepLogTests", dependencies: ["SweepLog", "SweepTestKit", logging],
      swiftSettings: strict),
    .testTarget(
      name: "SweepAnalysisTests",
      dependencies: ["SweepAnalysis", "SweepCore", "SweepStatistics", "RandomStreams"],
      swiftSettings: strict),
    .testTarget(
      name: "SweepStatisticsTests", dependencies: ["SweepStatistics", "RandomStreams"],
      resources: [.copy("Fixtures")], swiftSettings: strict),
    .testTarget(
      name: "TransformerKernelsTests", dependencies: ["TransformerKernels", "CTransformerKernels"],
      swiftSettings: strict + vectorSwift),
    .testTarget(
      name: "LanguageModelTests",
      dependencies: [
        "LanguageModel", "RandomStreams", "TransformerKernels", "CAllocationCount", crypto,
      ],
      resources: [.copy("Fixtures")], swiftSettings: strict),
    .testTarget(
      name: "BiasStudyTests",
      dependencies: [
        "BiasStudy", "StudyDocuments", "LanguageModel", "SweepCore", "TransformerKernels",
      ],
      resources: [.copy("Fixtures")], swiftSettings: strict),
    .testTarget(
      name: "ChatEndpointTests",
      dependencies: [
        "ChatEndpoint", "BiasStudy", "LanguageModel", "SweepCore",
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
        .product(name: "NIOHTTP1", package: "swift-nio"),
      ],
      swiftSettings: strict),
    .testTarget(
      name: "SweepReportTests",
      dependencies: [
        "SweepCore", "SweepLedger", "SweepReport", "SweepTestKit",
        .product(name: "GRDB", package: "GRDB.swift"),
      ],
      swiftSettings: strict),
  ]
)
