// SPDX-License-Identifier: Apache-2.0

extension Verdict {
  /// Who made the access, as its explanation calls it.
  /// - Parameters:
  ///   - device: how the shell writes the id of a device.
  ///   - subscriber: how it writes the id of a mirror.
  public func accessor(device name: (DeviceID) -> String, subscriber: (SubscriberID) -> String) -> String {
    isOfCPU ? "a CPU" : isOfMirror ? "mirror \(subscriber(self.subscriber))" : "device \(name(device))"
  }

  /// The same at a desk, where numbers are enough.
  public var accessor: String {
    accessor {
      "\($0.slot)"
    } subscriber: {
      "\($0.slot)"
    }
  }
}
