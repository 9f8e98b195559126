# Of region.auto.tfvars.json: what this region is.
variable "name" {
  description = "Name of the region."
  type        = string
}

variable "domain" {
  description = "DNS domain of the region."
  type        = string
}

variable "cidr" {
  description = "Address range of the region, a /16 that nothing else on the machine uses."
  type        = string
}

variable "azs" {
  description = "Letters of the availability zones; checked by modules/layout."
  type        = list(string)
  default     = ["a", "b", "c"]
}

variable "relay_port" {
  description = "Port on 127.0.0.1 of the user's own shell that leads into the region."
  type        = number
  validation {
    condition     = var.relay_port >= 1024 && var.relay_port <= 65535
    error_message = "relay_port must be between 1024 and 65535."
  }
}

variable "drillable" {
  description = "Whether drills may harm the region: hosts are marked so. A lab is there to be harmed."
  type        = bool
  default     = true
}

# Of terraform/profiles/<profile>.tfvars.json: how big it is.
variable "profile" {
  description = "Name of the profile."
  type        = string
}

variable "pools" {
  description = "Hosts per zone of each pool; checked by modules/layout."
  type        = object({ nameservice = optional(number, 1), storage = number, api = number, loadbalancer = number })
}

variable "shards" {
  description = "Metadata shards."
  type        = number
}

variable "disks" {
  description = "Disks of a storage host."
  type        = object({ count = optional(number, 14), size_bytes = optional(number, 2147483648) })
  default     = {}
}

# Of place.auto.tfvars.json, written by ./mobula: where this machine keeps the region.
variable "state_dir" {
  description = "Folder of the region's state."
  type        = string
}

variable "image" {
  description = "Root directory of the base image."
  type        = string
}

variable "task_images" {
  description = "Folder of the images that tasks of jobs see as their root."
  type        = string
}
