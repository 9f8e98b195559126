variable "name" {
  description = "Name of the region; the first part of every host's name."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9]{0,11}$", var.name))
    error_message = "name must be 1 to 12 lower-case letters and digits, a letter first: host names and namespaces are made from it."
  }
}

variable "domain" {
  description = "DNS domain; the region's public name is <name>.<domain>."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9-]+(\\.[a-z0-9-]+)*$", var.domain))
    error_message = "domain must be a DNS name such as mobula.test."
  }
}

variable "cidr" {
  description = "Address range of the region, a /16."
  type        = string
  validation {
    condition     = can(cidrnetmask(var.cidr)) && endswith(var.cidr, ".0.0/16")
    error_message = "cidr must be an IPv4 /16 such as 10.77.0.0/16."
  }
}

variable "azs" {
  description = "Letters of the availability zones, in order; their number is fixed by the metadata tier."
  type        = list(string)
  default     = ["a", "b", "c"]
  validation {
    condition     = length(var.azs) == 3 && length(distinct(var.azs)) == 3 && alltrue([for az in var.azs : can(regex("^[a-z]$", az))])
    error_message = "azs must be three different letters: a shard has one peer in each of three zones."
  }
}

variable "pools" {
  description = "Hosts per availability zone of each stateless or storage pool."
  type = object({
    nameservice  = optional(number, 1)
    storage      = number
    api          = number
    loadbalancer = number
  })
  validation {
    condition     = var.pools.nameservice == 1
    error_message = "pools.nameservice must be 1: the ensemble is one ZooKeeper server in each zone."
  }
  validation {
    condition     = alltrue([for count in values(var.pools) : count >= 1 && count <= 9 && floor(count) == count])
    error_message = "every pool has 1 to 9 hosts per zone."
  }
}

variable "shards" {
  description = "Metadata shards; each has one peer per zone, on a host of its own."
  type        = number
  default     = 1
  validation {
    condition     = var.shards >= 1 && var.shards <= 9 && floor(var.shards) == var.shards
    error_message = "shards must be 1 to 9."
  }
}

variable "disks" {
  description = "Disks of a storage host: three raidz2 vdevs of equal width and two hot spares."
  type = object({
    count      = optional(number, 14)
    size_bytes = optional(number, 2147483648)
  })
  default = {}
  validation {
    condition     = var.disks.count >= 14 && (var.disks.count - 2) % 3 == 0
    error_message = "disks.count must be 3 x n + 2 with n >= 4 (14, 17, 20, ...): three raidz2 vdevs and two hot spares."
  }
  validation {
    condition     = var.disks.size_bytes >= 67108864
    error_message = "disks.size_bytes must be at least 64 MiB, the smallest disk that ZFS takes."
  }
}
