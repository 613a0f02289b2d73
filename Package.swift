// swift-tools-version: 6.1
import PackageDescription

// The event loop's objects are called on one thread by construction, and the debug build, which runs the tests, checks
// exclusive access at run time; in release those checks were a ninth of a unary request's instructions.
let hotSettings: [SwiftSetting] = [
  .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release))
]

// Dependencies point inwards only (Sources/ARCHITECTURE.md); versions are pinned exactly.
let package = Package(
  name: "iommulab",
  products: [.executable(name: "iommulab", targets: ["iommulab"])],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
    .package(url: "https://github.com/apple/swift-collections", exact: "1.6.0"),
    .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
    .package(url: "https://github.com/apple/swift-nio", exact: "2.101.2"),
    .package(url: "https://github.com/apple/swift-protobuf", exact: "1.39.0"),
    .package(url: "https://github.com/jpsim/Yams", exact: "6.2.2"),
    .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", exact: "0.2.0"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", exact: "2.13.0"),
  ],
  targets: [
    .systemLibrary(name: "CNghttp2", pkgConfig: "libnghttp2", providers: [.apt(["libnghttp2-dev"])]),

    // The pure rooms: no I/O, no clock, no Foundation.
    .target(
      name: "IOMMUModel",
      dependencies: [
        .product(name: "DequeModule", package: "swift-collections"),
        .product(name: "HeapModule", package: "swift-collections"),
      ]),
    .target(name: "DeviceEndpoint"),
    .target(name: "MirrorEndpoint"),
    .target(
      name: "IOMMUSimulation",
      dependencies: [
        "IOMMUModel", "DeviceEndpoint", "MirrorEndpoint",
        .product(name: "HeapModule", package: "swift-collections"),
      ]),

    // The wire.
    .target(
      name: "LabProtocol",
      dependencies: [.product(name: "SwiftProtobuf", package: "swift-protobuf")]),
    .target(name: "HTTP2Session", dependencies: ["CNghttp2"], swiftSettings: hotSettings),
    .target(
      name: "RPCServer",
      dependencies: [
        "HTTP2Session",
        .product(name: "NIOConcurrencyHelpers", package: "swift-nio"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
        .product(name: "Logging", package: "swift-log"),
      ], swiftSettings: hotSettings),
    .target(name: "RPCClient", dependencies: ["HTTP2Session"]),

    // The service and its load.
    .target(
      name: "LabService",
      dependencies: [
        "IOMMUModel", "LabProtocol", "RPCServer",
        .product(name: "DequeModule", package: "swift-collections"),
        .product(name: "HeapModule", package: "swift-collections"),
        .product(name: "Histogram", package: "hdrhistogram-swift"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "NIOConcurrencyHelpers", package: "swift-nio"),
      ], swiftSettings: hotSettings),
    .target(
      name: "StormKit",
      dependencies: [
        "DeviceEndpoint", "MirrorEndpoint", "LabProtocol", "RPCClient",
        .product(name: "Histogram", package: "hdrhistogram-swift"),
      ]),
    .executableTarget(
      name: "iommulab",
      dependencies: [
        "IOMMUModel", "IOMMUSimulation", "LabService", "RPCServer", "StormKit",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "UnixSignals", package: "swift-service-lifecycle"),
        "Yams",
      ]),

    // Test support, outside the product: the page walker as a filter, for Tests/differential.
    .executableTarget(name: "WalkerProbe", dependencies: ["IOMMUModel"], path: "Tests/WalkerProbe"),
    // Test support: the processes that try every cell of docs/expected-verdicts.md against a running service.
    .executableTarget(name: "NetworkCells", dependencies: ["LabProtocol", "RPCClient"], path: "Tests/NetworkCells"),
    // The benchmarks' own programs, outside the product.
    .executableTarget(name: "MachineBench", dependencies: ["IOMMUModel"], path: "Benchmarks/MachineBench"),
    .executableTarget(
      name: "CountedService",
      dependencies: ["LabService", "RPCServer", .product(name: "Logging", package: "swift-log")],
      path: "Benchmarks/CountedService"),
    .testTarget(name: "TidyTests"),
    .testTarget(name: "IOMMUModelTests", dependencies: ["IOMMUModel"]),
    .testTarget(name: "DeviceEndpointTests", dependencies: ["DeviceEndpoint"]),
    .testTarget(name: "MirrorEndpointTests", dependencies: ["MirrorEndpoint"]),
    .testTarget(name: "IOMMUSimulationTests", dependencies: ["IOMMUModel", "IOMMUSimulation", "MirrorEndpoint"]),
    .testTarget(name: "LabProtocolTests", dependencies: ["LabProtocol"]),
    .testTarget(name: "HTTP2SessionTests", dependencies: ["HTTP2Session"]),
    .testTarget(name: "RPCServerTests", dependencies: ["RPCServer", "RPCClient"]),
    .testTarget(
      name: "LabServiceTests",
      dependencies: [
        "IOMMUModel", "LabProtocol", "LabService", "RPCClient", "RPCServer",
        .product(name: "Logging", package: "swift-log"),
        .product(name: "SwiftProtobuf", package: "swift-protobuf"),
      ]),
    .testTarget(name: "StormKitTests", dependencies: ["IOMMUModel", "StormKit"]),
  ],
  swiftLanguageModes: [.v6]
)
