// SPDX-License-Identifier: Apache-2.0

/// The owner of machines; nothing crosses tenants. Until tokens name others, every call is of the default tenant.
struct Tenant: Hashable, Sendable {
  let number: UInt32
  static var `default`: Tenant { Tenant(number: 0) }
}
